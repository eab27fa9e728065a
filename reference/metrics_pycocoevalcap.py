"""Scores small caption corpora with the original scorers of the COCO caption evaluation.

    pip install pycocoevalcap
    python reference/metrics_pycocoevalcap.py

writes testdata/metrics/captions_golden.json, which the tests of crates/tasks read. Only the BLEU,
ROUGE-L and CIDEr-D scorers are used; they are Python and need no Java. In place of the Penn
Treebank tokeniser (Java) stands `tokenise` below. The captions were written for this file.
"""

import json
import random
import re
from pathlib import Path

from pycocoevalcap.bleu.bleu import Bleu
from pycocoevalcap.cider.cider import Cider
from pycocoevalcap.rouge.rouge import Rouge

OUT = Path(__file__).resolve().parent.parent / "testdata" / "metrics" / "captions_golden.json"

# What an edge case is for, hypothesis, references.
EDGE_CASES = [
    ("identical to its only reference", "a red ball lies on the grass", ["a red ball lies on the grass"]),
    ("identical to one of three", "two boats on a lake", ["boats at dusk", "two boats on a lake", "a calm lake with two small boats"]),
    ("empty hypothesis", "", ["a dog runs", "a brown dog is running on the beach"]),
    ("hypothesis of punctuation only", "...!", ["a dog jumps over a log"]),
    ("empty reference among others", "a cat", ["", "a cat sleeps"]),
    ("empty hypothesis and an empty reference", "", ["", "a cat sleeps"]),
    ("hypothesis against an empty reference only", "a cat", [""]),
    ("one word", "bread", ["bread", "fresh bread on a table"]),
    ("one word, wrong", "bread", ["a bicycle against a wall"]),
    ("nothing in common", "green hills under clouds", ["my bicycle has no bell"]),
    ("length tie between a shorter and a longer reference", "one two three four five", ["one two three four", "one two three four five six"]),
    ("length tie, longer reference first", "one two three four five", ["five four three two one zero", "three four five six"]),
    ("good word repeated", "the the the the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("precision and recall from different references", "a man rides", ["a man rides a very tall horse along the shore at noon", "rides"]),
    ("much longer than the references", "a b c d e f g h i j k l m n o p q r s t", ["a b c d", "d e f g"]),
    ("much shorter than the references", "a plane", ["a small white plane flies low over the roofs of an old harbour town"]),
    ("capitals and punctuation", "A Man, in a RED shirt; waves!", ["a man in a red shirt waves", "The man's shirt is red."]),
    ("apostrophes and digits", "the dog's 2 bones", ["the dog's 2 bones lie here", "two of the dogs' bones"]),
    ("letters beyond ASCII", "Un café à côté de l'église.", ["Un café près de l'église", "Café À Côté"]),
    ("duplicate references", "a kite in the sky", ["a kite in the sky above", "a kite in the sky above"]),
    ("spaces in plenty", "  a   lamp\ton a  desk ", ["a lamp on a desk", " a  desk lamp "]),
]


def generated_captions(count, seed):
    """Captions of drawn scenes, with references of varied wording and number."""
    draw = random.Random(seed)
    colours = ["red", "blue", "green", "yellow", "grey"]
    shapes = ["circle", "square", "triangle", "star"]
    relations = ["left of", "right of", "above", "below"]
    for index in range(count):
        scene = [draw.choice(colours), draw.choice(shapes), draw.choice(relations), draw.choice(colours), draw.choice(shapes)]
        said = [draw.choice(colours) if place in (0, 3) and draw.random() < 0.3 else word for place, word in enumerate(scene)]
        wordings = [
            "a {} {} is {} a {} {}",
            "there is a {} {} {} the {} {}",
            "the picture shows a {} {} placed {} a {} {}",
            "{} {} {} {} {}",
            "one {} {} can be seen {} one {} {}",
        ]
        draw.shuffle(wordings)
        references = [wording.format(*scene) for wording in wordings[: 1 + index % 5]]
        yield f"generated scene {index}", draw.choice(wordings).format(*said), references


def tokenise(text):
    """Lower case; all but letters, digits and apostrophes to spaces; single spaces."""
    return " ".join(re.sub(r"[^\w']|_", " ", text.lower()).split())


def score(name, cases):
    tokenised = [(tokenise(hypothesis), [tokenise(reference) for reference in references]) for _, hypothesis, references in cases]
    hypotheses = {index: [hypothesis] for index, (hypothesis, _) in enumerate(tokenised)}
    references = {index: references for index, (_, references) in enumerate(tokenised)}
    bleu, bleu_items = Bleu(4).compute_score(references, hypotheses, verbose=0)
    rouge, rouge_items = Rouge().compute_score(references, hypotheses)
    cider, cider_items = Cider().compute_score(references, hypotheses)
    return {
        "name": name,
        "scores": {"bleu": [float(value) for value in bleu], "rouge_l": float(rouge), "cider_d": float(cider)},
        "items": [
            {
                "case": case,
                "hypothesis": hypothesis,
                "references": refs,
                "tokenised": tokenise(hypothesis),
                "scores": {
                    "bleu": [float(bleu_items[n][index]) for n in range(4)],
                    "rouge_l": float(rouge_items[index]),
                    "cider_d": float(cider_items[index]),
                },
            }
            for index, (case, hypothesis, refs) in enumerate(cases)
        ],
    }


def main():
    scenes = list(generated_captions(15, seed=1))
    corpora = [
        score("everything", EDGE_CASES + scenes),
        score("scenes", scenes),
        score("two items that share words", [scenes[0], scenes[1]]),
        score("the same item twice", [scenes[2], scenes[2]]),
        score("a single item", [scenes[4]]),
        score("a single empty hypothesis", [EDGE_CASES[2]]),
    ]
    OUT.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"made_by": "reference/metrics_pycocoevalcap.py (pycocoevalcap 1.2)", "corpora": corpora}, indent=1, ensure_ascii=False)
    OUT.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
