"""Small checkpoints as PyTorch writes them, and what is in them.

Made with torch 2.15.0. Writes testdata/nn/weights/: each `NAME.pt` (or directory of shards) with
`NAME.expected.safetensors`, which holds the state dict that `torch.load` gives, floats as F32 and integers as I64, all
contiguous.

    python -m venv VENV && VENV/bin/pip install torch numpy safetensors
    VENV/bin/python reference/weights_pytorch.py
"""

import argparse
import json
import warnings
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy
import torch
from safetensors.torch import save_file

OUT = Path(__file__).resolve().parent.parent / "testdata" / "nn" / "weights"
warnings.simplefilter("ignore")


def expected(name, tensors):
    plain = {}
    for key, tensor in tensors.items():
        tensor = tensor.detach()
        kind = torch.float32 if tensor.is_floating_point() else torch.int64
        plain[key] = tensor.to(kind).contiguous().clone()
    save_file(plain, OUT / f"{name}.expected.safetensors")


def kinds():
    """A tensor of each kind of number, stride and sharing."""
    generator = torch.Generator().manual_seed(1)
    table = torch.randn(6, 5, generator=generator)
    flat = torch.randn(40, generator=generator)
    tied = torch.nn.Parameter(torch.randn(4, 3, generator=generator))
    return OrderedDict(
        {
            "f32": table,
            "f16": table.half(),
            "bf16": table.bfloat16(),
            "f64": table.double() * 1e-3,
            "i64": torch.tensor([[1, -2], [3, 1 << 40]]),
            "i32": torch.tensor([7, -8], dtype=torch.int32),
            "i16": torch.tensor([7, -8], dtype=torch.int16),
            "i8": torch.tensor([7, -8], dtype=torch.int8),
            "u8": torch.tensor([7, 200], dtype=torch.uint8),
            "bool": torch.tensor([True, False, True]),
            "transposed": table.T,
            "permuted": flat[:24].reshape(2, 3, 4).permute(2, 0, 1),
            "rows": table[2:4],
            "columns": table[:, 1:4],
            "every_second": flat[1::2],
            "repeated": torch.arange(3.0).expand(2, 3),
            "position_ids": torch.arange(7).expand((1, -1)),
            "scalar": torch.tensor(2.6592),
            "empty": torch.zeros(0, 3),
            "embedding.weight": tied,
            "head.weight": tied,
            "parameter": torch.nn.Parameter(torch.randn(2, 2, generator=generator)),
            "channels_last": torch.randn(2, 3, 2, 2, generator=generator).to(memory_format=torch.channels_last),
        }
    )


class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.ln = torch.nn.LayerNorm(4)
        self.conv = torch.nn.Conv2d(3, 4, 2, bias=False)
        self.in_proj_weight = torch.nn.Parameter(torch.randn(6, 4))
        # as in CLIP: an attribute, no buffer, and not finite
        self.attn_mask = torch.full((3, 3), float("-inf")).triu_(1)
        self.heads = 3

    def forward(self, x):
        return self.ln(x) + self.attn_mask.sum() * 0 + self.heads


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.Sequential(Block(), Block())
        self.norm = torch.nn.BatchNorm1d(4)
        self.logit_scale = torch.nn.Parameter(torch.ones([]) * 2.6)
        self.register_buffer("input_resolution", torch.tensor(32))
        self.context_length = 77

    def forward(self, x):
        return self.norm(self.blocks(x)) * self.logit_scale


def without_debug(path):
    """Drops the places in the sources, which are of no use elsewhere; records stay stored or deflated as they are."""
    with zipfile.ZipFile(path) as archive:
        records = [(info, archive.read(info)) for info in archive.infolist()]
    with zipfile.ZipFile(path, "w") as archive:
        for info, data in records:
            if not info.filename.endswith(".debug_pkl"):
                archive.writestr(zipfile.ZipInfo(info.filename), data, compress_type=info.compress_type)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    tensors = kinds()
    torch.save(tensors, OUT / "kinds.pt")
    torch.save(tensors, OUT / "kinds_legacy.pth", _use_new_zipfile_serialization=False)
    torch.save(tensors, OUT / "kinds_protocol5.pt", pickle_protocol=5)
    expected("kinds", tensors)

    # types that are stored as bytes with the type beside
    unsigned = {"u16": torch.tensor([1, 65535], dtype=torch.uint16), "u32": torch.tensor([1, 7], dtype=torch.uint32)}
    torch.save(unsigned, OUT / "unsigned.pt")
    expected("unsigned", unsigned)

    torch.manual_seed(2)
    net = Net()
    state = net.state_dict()

    # a training checkpoint, with what people put beside the weights
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    training = {
        "model": OrderedDict((f"module.{k}", v) for k, v in state.items()),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"t_initial": 20, "base_values": [1e-4, 1e-4]},
        "scaler": None,
        "epoch": 3,
        "best": numpy.float64(0.75),
        "count": numpy.int64(12),
        "name": "ALBEF.pth",
        "config": {"image_res": 384, "bert_config": "configs/config_bert.json", "alpha": 0.4, "nested": {"a": [1, 2]}},
        "args": argparse.Namespace(seed=42, distributed=True, output=Path("out")),
        "device": torch.device("cpu"),
        "dtype": torch.float16,
        "large": 1 << 80,
        "size": torch.Size([2, 3]),
        "set": {1},
    }
    torch.save(training, OUT / "training.pt")
    torch.save(training, OUT / "training_legacy.pth", _use_new_zipfile_serialization=False)
    expected("training", state)

    # a whole module of PyTorch's own classes
    torch.manual_seed(3)
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    torch.save(module, OUT / "module.pt")
    expected("module", module.state_dict())

    # TorchScript in half precision, as CLIP was published
    script = torch.jit.script(net.half())
    script.save(OUT / "script.pt")
    without_debug(OUT / "script.pt")
    expected("script", script.state_dict())
    traced = torch.jit.trace(net.float().eval(), torch.ones(2, 4))
    traced.save(OUT / "traced.pt")
    without_debug(OUT / "traced.pt")
    expected("traced", traced.state_dict())

    # two shards of each format
    names = list(state)
    half = len(names) // 2
    for directory, pattern, save in [
        ("sharded_bin", "pytorch_model-{:05}-of-00002.bin", torch.save),
        ("sharded_safetensors", "model-{:05}-of-00002.safetensors", save_file),
    ]:
        folder = OUT / directory
        folder.mkdir(exist_ok=True)
        weight_map = {}
        for number, part in enumerate([names[:half], names[half:]], 1):
            file = pattern.format(number)
            save({k: state[k].contiguous().clone() for k in part}, folder / file)
            weight_map.update(dict.fromkeys(part, file))
        index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
        stem = "pytorch_model.bin" if save is torch.save else "model.safetensors"
        (folder / f"{stem}.index.json").write_text(json.dumps(index, indent=1) + "\n")


if __name__ == "__main__":
    main()
