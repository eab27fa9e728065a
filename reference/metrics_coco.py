"""Writes testdata/metrics/detection.json: boxes of random pictures with the average precision that pycocotools tells.

    python -m venv VENV && VENV/bin/pip install pycocotools numpy
    VENV/bin/python reference/metrics_coco.py

Made with pycocotools 2.0.11. Pictures without objects, without finds, classes that nowhere occur, equal scores and more
than a hundred finds of a picture are among them.
"""

import contextlib
import io
import json
import random
from pathlib import Path

from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

OUT = Path(__file__).resolve().parent.parent / "testdata" / "metrics" / "detection.json"


def case(seed, pictures, classes, most, noise, finds):
    rng = random.Random(seed)
    number = lambda low, high: round(rng.uniform(low, high), 1)
    items = []
    for _ in range(pictures):
        truths, found = [], []
        for _ in range(rng.randint(0, most)):
            x, y, w, h = number(0, 80), number(0, 80), number(3, 40), number(3, 40)
            # the last class never occurs
            truths.append([rng.randrange(classes - 1), x, y, round(x + w, 1), round(y + h, 1)])
        for truth in truths:
            for _ in range(rng.choice([0, 1, 1, 1, 2])):
                box = [round(c + rng.gauss(0, noise), 1) for c in truth[1:]]
                if box[0] < box[2] and box[1] < box[3]:
                    label = truth[0] if rng.random() < 0.85 else rng.randrange(classes)
                    found.append([label, *box, round(rng.random(), 2)])
        for _ in range(rng.randint(0, finds)):
            x, y = number(0, 80), number(0, 80)
            found.append([rng.randrange(classes), x, y, round(x + number(3, 40), 1), round(y + number(3, 40), 1),
                          round(rng.random() * 0.7, 2)])
        items.append({"truths": truths, "found": found})
    return score(items, classes)


def score(items, classes):
    xywh = lambda b: [b[0], b[1], b[2] - b[0], b[3] - b[1]]
    annotations, results = [], []
    for i, item in enumerate(items):
        for label, *box in item["truths"]:
            b = xywh(box)
            annotations.append({"id": len(annotations) + 1, "image_id": i, "category_id": label, "bbox": b,
                                "area": b[2] * b[3], "iscrowd": 0})
        for label, *box, s in item["found"]:
            results.append({"image_id": i, "category_id": label, "bbox": xywh(box), "score": s})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {"images": [{"id": i} for i in range(len(items))], "annotations": annotations,
                         "categories": [{"id": k, "name": str(k)} for k in range(classes)]}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    # [thresholds, recalls, classes, areas, most finds]: all areas, a hundred finds
    precision = evaluation.eval["precision"][:, :, :, 0, 2]
    of_class = lambda p: None if (p < 0).all() else float(p[p > -1].mean())
    return {"classes": classes, "pictures": items, "ap": float(evaluation.stats[0]), "ap50": float(evaluation.stats[1]),
            "by_class": [{"ap": of_class(precision[:, :, k]), "ap50": of_class(precision[0, :, k])} for k in range(classes)]}


if __name__ == "__main__":
    cases = [case(1, 12, 4, 6, 1.0, 4), case(2, 3, 3, 20, 3.0, 150), case(3, 6, 2, 2, 0.0, 0)]
    OUT.write_text(json.dumps(cases, separators=(",", ":")) + "\n")
    print([(round(c["ap"], 4), round(c["ap50"], 4)) for c in cases], OUT.stat().st_size)
