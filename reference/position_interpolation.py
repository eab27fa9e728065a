"""Writes testdata/nn/position_interpolation.safetensors: position tables of one grid and of others.

    python -m venv VENV && VENV/bin/pip install torch transformers open_clip_torch safetensors
    VENV/bin/python reference/position_interpolation.py

Made with torch 2.15.0, transformers 5.23.0 and open_clip_torch 3.3. `in.HxW` are random tables, `out.MODE.HxW.HxW` what
F.interpolate makes of them; `model.NAME.in` and `model.NAME.out` are tables before and after the model's own code.
"""

from pathlib import Path
from types import SimpleNamespace

import open_clip.model
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from transformers import BlipVisionConfig, CLIPVisionConfig, Siglip2VisionConfig, SiglipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionEmbeddings
from transformers.models.clip.modeling_clip import CLIPVisionEmbeddings
from transformers.models.siglip2.modeling_siglip2 import Siglip2VisionEmbeddings
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings

OUT = Path(__file__).resolve().parent.parent / "testdata" / "nn" / "position_interpolation.safetensors"
FROM = [(2, 2), (4, 4), (7, 7), (3, 5), (1, 6), (1, 1)]
TO = [(1, 1), (2, 3), (4, 4), (5, 2), (7, 7), (9, 11), (1, 16)]


@torch.no_grad()
def main():
    torch.manual_seed(0)
    tensors = {}
    for h, w in FROM:
        table = torch.randn(1, 3, h, w)
        rows = lambda t: t.flatten(2)[0].T.contiguous()
        tensors[f"in.{h}x{w}"] = rows(table)
        for size in TO:
            for mode in ["bilinear", "bicubic"]:
                for antialias in [False, True]:
                    out = F.interpolate(table, size=size, mode=mode, antialias=antialias, align_corners=False)
                    suffix = "_antialias" if antialias else ""
                    tensors[f"out.{mode}{suffix}.{h}x{w}.{size[0]}x{size[1]}"] = rows(out)

    def model(name, before, after):
        tensors[f"model.{name}.in"] = before.reshape(-1, 4).contiguous().clone()
        tensors[f"model.{name}.out"] = after.reshape(-1, 4).contiguous().clone()

    sizes = dict(hidden_size=4, num_attention_heads=1, image_size=6, patch_size=2)
    for name, config, embeddings, (h, w) in [
        ("clip", CLIPVisionConfig, CLIPVisionEmbeddings, (4, 6)),
        ("siglip", SiglipVisionConfig, SiglipVisionEmbeddings, (5, 2)),
        ("blip", BlipVisionConfig, BlipVisionEmbeddings, (5, 5)),
    ]:
        module = embeddings(config(**sizes))
        table = module.position_embedding if name == "blip" else module.position_embedding.weight
        torch.nn.init.normal_(table)
        tokens = torch.zeros(1, h * w + (name != "siglip"), 4)
        model(name, table, module.interpolate_pos_encoding(tokens, 2 * h, 2 * w))

    module = Siglip2VisionEmbeddings(Siglip2VisionConfig(hidden_size=4, num_attention_heads=1, num_patches=16, patch_size=2))
    torch.nn.init.normal_(module.position_embedding.weight)
    table = module.position_embedding.weight
    after = module.resize_positional_embeddings(table.reshape(4, 4, 4), torch.tensor([[3, 5]]), max_length=15)
    model("siglip2", table, after)

    state = {"visual.positional_embedding": torch.randn(10, 4), "positional_embedding": torch.randn(9, 4)}
    before = dict(state)
    target = SimpleNamespace(visual=SimpleNamespace(grid_size=(2, 4)), positional_embedding=torch.zeros(5, 4))
    open_clip.model.resize_pos_embed(state, target)
    open_clip.model.resize_text_pos_embed(state, target)
    model("open_clip", before["visual.positional_embedding"], state["visual.positional_embedding"])
    model("open_clip_text", before["positional_embedding"], state["positional_embedding"])
    save_file(tensors, OUT)


if __name__ == "__main__":
    main()
