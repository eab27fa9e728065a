"""Writes testdata/train/steps.json: ten optimizer steps of tiny models as PyTorch takes them by a recipe of ours.

    python -m venv VENV && VENV/bin/pip install torch transformers safetensors
    OMP_NUM_THREADS=1 VENV/bin/python reference/train_steps.py

Made with transformers 5.23.0 and torch 2.15.0 on a CPU. The models, their weights and inputs are those of
testdata/models (reference/models_clip.py, reference/models_blip.py). Each step: the gradient of the loss, clipped to
length 1 (torch.nn.utils.clip_grad_norm_), AdamW with weight decay on matrices only (no vectors, positions or token
embeddings, as is usual), and a learning rate that rises over 3 steps and then falls in a cosine. Recorded are the
losses before each step and the lengths of the gradients before they are clipped.

`layers` is the same for CLIP with layer-wise learning rates, a factor of 0.5 for each layer down, and `frozen` with the
picture tower frozen.
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import (
    BlipForConditionalGeneration,
    BlipForQuestionAnswering,
    CLIPModel,
    SiglipModel,
)

ROOT = Path(__file__).resolve().parent.parent / "testdata"
STEPS, WARMUP, PEAK, END, DECAY, CLIP = 10, 3, 3e-3, 1e-4, 0.1, 1.0


def fill(name, shape):
    """As in reference/models_clip.py."""
    import numpy as np

    seed = 0x811C9DC5
    for byte in name.encode():
        seed = ((seed ^ byte) * 0x01000193) & 0xFFFFFFFF
    x = (np.arange(int(np.prod(shape, dtype=np.int64)), dtype=np.uint64) + seed) & 0xFFFFFFFF
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x ^= x >> np.uint64(shift)
        x = (x * np.uint64(factor)) & np.uint64(0xFFFFFFFF)
    x ^= x >> np.uint64(16)
    values = (x % np.uint64(257)).astype(np.int64) - 128
    return torch.from_numpy(values.astype(np.float32) / 512).reshape(tuple(shape))


def inputs(file):
    """The arguments of a golden file."""
    found = {}
    for name, value in load_file(file).items():
        if name.startswith("in."):
            found[name[3:]] = value
        elif name.startswith("shape."):
            found[name[6:]] = 4 * fill(name[6:], value.tolist())
    return found


def rate(step):
    if step <= WARMUP:
        return PEAK * step / WARMUP
    progress = (step - WARMUP) / (STEPS - WARMUP)
    return END + (PEAK - END) * 0.5 * (1 + math.cos(math.pi * progress))


def decays(name, p):
    undecayed = ("position_embedding", "token_embedding", "word_embeddings", "position_embeddings")
    return p.dim() >= 2 and not any(part in name for part in undecayed)


def layer_factor(name, model):
    """BEiT's: 0.5 for each layer between a parameter and the top of its tower."""
    for tower in ("vision_model", "text_model"):
        if not name.startswith(tower + "."):
            continue
        depth = len(getattr(model, tower).encoder.layers)
        if ".encoder.layers." in name:
            return 0.5 ** (depth - int(name.split(".encoder.layers.")[1].split(".")[0]))
        if ".embeddings." in name or ".pre_layrnorm." in name:
            return 0.5 ** (depth + 1)
    return 1.0


def run(model, loss, factor=lambda name: 1.0, frozen=lambda name: False):
    groups = []
    for name, p in model.named_parameters():
        if frozen(name):
            p.requires_grad_(False)
            continue
        decay = DECAY if decays(name, p) else 0.0
        groups.append({"params": [p], "weight_decay": decay, "factor": factor(name)})
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.98), eps=1e-8)
    losses, lengths = [], []
    for step in range(1, STEPS + 1):
        for group in optimizer.param_groups:
            group["lr"] = rate(step) * group["factor"]
        optimizer.zero_grad()
        value = loss(model)
        value.backward()
        losses.append(value.item())
        lengths.append(torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP).item())
        optimizer.step()
    print([round(x, 4) for x in losses])
    return {"losses": losses, "grad_norms": lengths}


def clip_loss(model, given):
    return model(**given, return_loss=True).loss


def main():
    torch.manual_seed(0)
    models = ROOT / "models"
    found = {}
    for name, kind in (("clip/largest_id", CLIPModel), ("siglip/fixed", SiglipModel)):
        given = inputs(models / name / "golden.safetensors")
        # pairs: as many texts as pictures, read whole, as padding is not looked at
        count = min(len(given["pixel_values"]), len(given["input_ids"]))
        given = {k: given[k][:count] for k in ("pixel_values", "input_ids")}

        def loss(model, given=given):
            return clip_loss(model, given)

        load = lambda: kind.from_pretrained(models / name).train()
        found[name] = run(load(), loss)
        if kind is CLIPModel:
            model = load()
            found["layers"] = run(model, loss, factor=lambda n: layer_factor(n, model))
            found["frozen"] = run(load(), loss, frozen=lambda n: n.startswith(("vision_model", "visual")))
    for name, kind in (
        ("blip/captioning", BlipForConditionalGeneration),
        ("blip/question_answering", BlipForQuestionAnswering),
    ):
        model = kind.from_pretrained(models / name).eval()
        given = inputs(models / name / "forward.golden.safetensors")
        given = {k: v for k, v in given.items() if k in ("pixel_values", "input_ids", "attention_mask", "labels")}
        found[name] = run(model, lambda m, given=given: m(**given).loss)
    (ROOT / "train").mkdir(exist_ok=True)
    (ROOT / "train" / "steps.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
