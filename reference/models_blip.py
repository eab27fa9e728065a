"""Writes testdata/models/blip: tiny random BLIP models with inputs, outputs, gradients and losses of transformers.

    python -m venv VENV && VENV/bin/pip install torch transformers safetensors
    VENV/bin/python reference/models_blip.py

Made with transformers 5.23.0 and torch 2.15.0 on a CPU. There is a directory per model with config.json and
model.safetensors as `save_pretrained` writes them, and golden files for `vlm verify`: tensors `in.*` are the arguments
of the reference's forward pass (or of `generate`, where there is `in.max_new_tokens`), `out.*` its results.
gradients.safetensors, where there is one, holds the gradients of `forward.golden.safetensors`'s loss by published name,
and `steps`, the losses of ten steps of AdamW (learning rate 0.01, weight decay 0.05 on everything) from there on.

The authors' own layout has a script of its own, reference/blip_original.py.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import (
    BlipConfig,
    BlipForConditionalGeneration,
    BlipForImageTextRetrieval,
    BlipForQuestionAnswering,
    BlipModel,
)

OUT = Path(__file__).resolve().parent.parent / "testdata" / "models" / "blip"
VISION = dict(hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2, image_size=8, patch_size=4)
TEXT = dict(vocab_size=20, hidden_size=12, intermediate_size=16, num_hidden_layers=2, num_attention_heads=3,
            max_position_embeddings=16, bos_token_id=17, eos_token_id=2, pad_token_id=0, sep_token_id=3)
# a question's states are the answer decoder's memory, so their widths must be equal
ANSWERER = TEXT | dict(hidden_size=8, num_attention_heads=2)
MASK = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]])
IDS = torch.tensor([[17, 5, 9, 14, 6, 3], [17, 8, 11, 3, 0, 0]])


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def build(cls, seed, text=TEXT, vision=VISION, **config):
    torch.manual_seed(seed)
    model = cls(BlipConfig(text_config=dict(text), vision_config=dict(vision), **config))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            # norms, biases and temperatures away from their trivial values, outputs far from uniform
            if p.dim() < 2:
                p.add_(0.1 * noise)
            else:
                p.copy_(0.3 * noise)
    return model.eval()


def write(directory, model):
    model.save_pretrained(OUT / directory)
    (OUT / directory / "generation_config.json").unlink(missing_ok=True)
    print(directory, sum(p.numel() for p in model.parameters()), "parameters")


def golden(path, inputs, outputs):
    tensors = {f"in.{k}": torch.as_tensor(v).contiguous() for k, v in inputs.items()}
    tensors |= {f"out.{k}": v.detach().contiguous().clone() for k, v in outputs.items()}
    save_file(tensors, OUT / f"{path}.golden.safetensors")


def results(out, *more):
    found = {k: out[k] for k in ("loss", "logits", "image_embeds", "text_embeds", "last_hidden_state", "itm_score",
                                 "question_embeds", "logits_per_image", "logits_per_text") if out.get(k) is not None}
    if out.get("hidden_states") is not None:
        found |= {f"hidden_states.{i}": v for i, v in enumerate(out.hidden_states)}
    return found | dict(*more)


def run(path, model, **inputs):
    with torch.no_grad():
        golden(path, inputs, results(model(**inputs)))


def generate(path, model, tokens, options={}, **inputs):
    with torch.no_grad():
        ids = model.generate(**{k: v.clone() if torch.is_tensor(v) else v for k, v in inputs.items()},
                             max_new_tokens=tokens, do_sample=False, **options)
    print(path, ids.tolist())
    golden(path, inputs | options | {"max_new_tokens": tokens}, {"generated_ids": ids})


def train(directory, model, **inputs):
    """Gradients of the loss, and the losses of ten steps."""
    model.loss = lambda: model(**inputs).loss
    model.loss().backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.05)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = model.loss()
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
    print(directory, [round(x, 4) for x in losses])
    save_file(gradients | {"steps": torch.tensor(losses)}, OUT / directory / "gradients.safetensors")


def captioning():
    pixels = normal(2, 3, 8, 8, seed=1)
    # a token that ends some texts before others
    model = build(BlipForConditionalGeneration, 10, TEXT | dict(label_smoothing=0.1, sep_token_id=12))
    write("captioning", model)
    labels = IDS.masked_fill(MASK == 0, -100)
    labels[:, :2] = -100
    forward = dict(pixel_values=pixels, input_ids=IDS, attention_mask=MASK, labels=labels)
    run("captioning/forward", model, **forward, output_hidden_states=True)
    generate("captioning/generate", model, 6, pixel_values=pixels)
    generate("captioning/prompt", model, 5, pixel_values=pixels, input_ids=IDS[:, :4], attention_mask=MASK[:, :4])
    # prompts of different lengths, padded behind as the processor does it, with and without a mask
    generate("captioning/padded_prompt", model, 5, pixel_values=pixels, input_ids=IDS, attention_mask=MASK)
    generate("captioning/unmasked_prompt", model, 5, pixel_values=pixels, input_ids=IDS)
    # padded in front
    generate("captioning/left_prompt", model, 5, pixel_values=pixels, attention_mask=MASK.flip(1),
             input_ids=torch.tensor([[17, 5, 9, 14, 6, 3], [0, 0, 17, 8, 11, 3]]))
    for name, options in (("beam", dict(num_beams=3)), ("long_beam", dict(num_beams=4, length_penalty=3.0))):
        generate(f"captioning/{name}", model, 8, options, pixel_values=pixels, input_ids=IDS[:, :3])
    # larger and smaller than the config's pictures, and not square
    for name, size in (("large", (12, 16)), ("small", (4, 9))):
        run(f"captioning/{name}", model, pixel_values=normal(1, 3, *size, seed=3), input_ids=IDS[:1],
            interpolate_pos_encoding=True)
    train("captioning", model, **forward)


def variant():
    """Everything that a config may say otherwise."""
    text = TEXT | dict(num_hidden_layers=3, num_attention_heads=4, hidden_act="gelu_new", layer_norm_eps=1e-3,
                       tie_word_embeddings=False, label_smoothing=0.0)
    vision = VISION | dict(num_hidden_layers=1, num_attention_heads=4, hidden_act="quick_gelu", layer_norm_eps=1e-2,
                           image_size=11, patch_size=5)
    model = build(BlipForConditionalGeneration, 11, text, vision, tie_word_embeddings=False)
    write("variant", model)
    pixels = normal(2, 3, 11, 11, seed=4)
    labels = torch.tensor([[-100, 5, 9, 14, 6, 3], [-100, 8, 11, 3, 1, 2]])
    run("variant/forward", model, pixel_values=pixels, input_ids=IDS, labels=labels)
    generate("variant/generate", model, 6, pixel_values=pixels, input_ids=IDS[:, :3])


def question_answering():
    pixels = normal(2, 3, 8, 8, seed=5)
    model = build(BlipForQuestionAnswering, 12, ANSWERER | dict(label_smoothing=0.1))
    write("question_answering", model)
    answers = torch.tensor([[17, 5, 3], [17, 13, 3]])
    forward = dict(pixel_values=pixels, input_ids=IDS, attention_mask=MASK, labels=answers)
    run("question_answering/forward", model, **forward)
    # answers of different lengths, with their mask and their own inputs
    run("question_answering/padded", model, **(forward | dict(
        decoder_input_ids=torch.tensor([[17, 5, 6, 3], [17, 13, 3, 0]]),
        decoder_attention_mask=torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]),
        labels=torch.tensor([[17, 5, 6, 3], [17, 13, 3, -100]]))))
    # padding left in the labels
    run("question_answering/pad_labels", model, **(forward | dict(labels=torch.tensor([[17, 5, 6, 3], [17, 13, 3, 0]]))))
    generate("question_answering/generate", model, 5, pixel_values=pixels, input_ids=IDS, attention_mask=MASK)
    train("question_answering", model, **forward)


def retrieval():
    pixels = normal(2, 3, 8, 8, seed=6)
    model = build(BlipForImageTextRetrieval, 13, image_text_hidden_size=10)
    write("retrieval", model)
    pair = dict(pixel_values=pixels, input_ids=IDS, attention_mask=MASK)
    run("retrieval/itm", model, **pair)
    run("retrieval/itc", model, **pair, use_itm_head=False)
    # one picture and two texts
    run("retrieval/one_picture", model, **(pair | dict(pixel_values=pixels[:1])), use_itm_head=False)


def contrastive():
    pixels = normal(2, 3, 8, 8, seed=7)
    model = build(BlipModel, 14, projection_dim=10)
    write("contrastive", model)
    forward = dict(pixel_values=pixels, input_ids=IDS, attention_mask=MASK, return_loss=True)
    run("contrastive/forward", model, **forward)
    train("contrastive", model, **forward)


def full_size(directory):
    """BLIP base with random weights: `models_blip.py full DIRECTORY`, outside the repository."""
    global OUT
    OUT = Path(directory)
    pixels = normal(1, 3, 384, 384, seed=8)
    ids = torch.tensor([[30522, 1037, 3861, 1997, 1037, 4937, 102, 0]])
    mask = (ids != 0).long()
    torch.manual_seed(0)
    for name, cls, inputs in (
        ("captioning", BlipForConditionalGeneration, dict(labels=ids.masked_fill(ids == 0, -100))),
        ("question_answering", BlipForQuestionAnswering, dict(labels=torch.tensor([[30522, 4937, 102]]))),
        ("retrieval", BlipForImageTextRetrieval, {}),
    ):
        model = cls(BlipConfig()).eval()
        with torch.no_grad():
            # the published initialisation of class token and positions is all but zero
            model.vision_model.embeddings.class_embedding.normal_(std=0.5)
            model.vision_model.embeddings.position_embedding.normal_(std=0.5)
        write(name, model)
        run(f"{name}/forward", model, pixel_values=pixels, input_ids=ids, attention_mask=mask, **inputs)
        if name != "retrieval":
            prompt = ids[:, :4] if name == "captioning" else ids
            generate(f"{name}/generate", model, 8, pixel_values=pixels, input_ids=prompt)


if sys.argv[1:2] == ["full"]:
    full_size(sys.argv[2])
else:
    captioning()
    variant()
    question_answering()
    retrieval()
    contrastive()
    for path in OUT.glob("*/config.json"):
        # the version that wrote a config says nothing about the model
        config = json.loads(path.read_text())
        for part in (config, config["text_config"], config["vision_config"]):
            part.pop("transformers_version", None)
        path.write_text(json.dumps(config, indent=2) + "\n")
