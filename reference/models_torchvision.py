"""Writes testdata/models/torchvision: tiny random classifiers of torchvision's own classes, with what they make of inputs.

    python -m venv VENV && VENV/bin/pip install torch torchvision safetensors
    OMP_NUM_THREADS=1 VENV/bin/python reference/models_torchvision.py
    OMP_NUM_THREADS=1 VENV/bin/python reference/models_torchvision.py full DIRECTORY   (real sizes, outside the repository)

Made with torchvision 0.29.2 and torch 2.15.0 on a CPU. The files of a case are those of reference/models_clip.py: weights
are a function of their names (`fill`); `out.features` is the last map, `out.features.I` the map after stage `I`.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models import VGG
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from torchvision.models.vgg import make_layers
from torchvision.transforms._presets import ImageClassification

from known_weights import fill, filled, train

OUT = Path(__file__).resolve().parent.parent / "testdata" / "models" / "torchvision"


def small_resnet(block, layers, width, classes, width_per_group=64):
    """torchvision's class with other widths: its constructor has no argument for them, its parts have."""
    model = ResNet(block, layers, classes, width_per_group=width_per_group)
    model.inplanes = width
    model.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
    model.bn1 = nn.BatchNorm2d(width)
    for i, blocks in enumerate(layers):
        setattr(model, f"layer{i + 1}", model._make_layer(block, width << i, blocks, stride=1 if i == 0 else 2))
    model.fc = nn.Linear(8 * width * block.expansion, classes)
    return model


def small_vgg(stages, hidden, classes, batch_norm):
    layers = [x for stage in stages for x in [*stage, "M"]]
    model = VGG(make_layers(layers, batch_norm), classes, init_weights=False)
    model.classifier = nn.Sequential(nn.Linear(stages[-1][-1] * 49, hidden), nn.ReLU(True), nn.Dropout(),
                                     nn.Linear(hidden, hidden), nn.ReLU(True), nn.Dropout(), nn.Linear(hidden, classes))
    return model


def stages(model, pixels):
    """The map after each stage."""
    maps = {}
    if isinstance(model, ResNet):
        x = model.maxpool(model.relu(model.bn1(model.conv1(pixels))))
        for i in range(1, 5):
            x = getattr(model, f"layer{i}")(x)
            maps[f"features.{i}"] = x
    else:
        x, i = pixels, 0
        for layer in model.features:
            x = layer(x)
            if isinstance(layer, nn.MaxPool2d):
                i += 1
                maps[f"features.{i}"] = x
    return maps | {"features": x}


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return model


def case(name, model, config, pixels, labels, trained=True):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if config:
        config |= {"library_name": "torchvision", "num_classes": 5}
        (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    model = without_dropout(filled(model))
    shapes = {k: list(v.shape) for k, v in model.state_dict().items() if v.is_floating_point()}
    (folder / "weights.json").write_text(json.dumps(shapes, indent=0) + "\n")
    with torch.no_grad():
        outputs = stages(model, pixels) | {"logits": model(pixels)}
        outputs["loss"] = nn.functional.cross_entropy(outputs["logits"], labels).reshape(1)
    golden = {"shape.pixel_values": torch.tensor(pixels.shape), "in.labels": labels}
    golden |= {f"out.{k}": v for k, v in outputs.items()}
    if trained:
        model.train()
        train(model, lambda: nn.functional.cross_entropy(model(pixels), labels), golden)
    golden = {k: v.detach().contiguous().clone() for k, v in golden.items()}
    note = {"class": f"torchvision {type(model).__name__}"}
    save_file(golden, folder / "golden.safetensors", metadata={"golden": json.dumps(note)})
    print(name, f"{sum(f.stat().st_size for f in folder.iterdir()) / 1024:.0f} KiB",
          [round(x, 3) for x in golden.get("losses", torch.zeros(0)).tolist()])


def small():
    # as the test computes an input that is told by its shape
    pixels = 4 * fill("pixel_values", (4, 3, 64, 64))
    labels = torch.tensor([0, 3, 1, 4])
    sizes = dict(layers=[1, 2, 1, 1], width=4)
    case("resnet50", small_resnet(Bottleneck, [1, 2, 1, 1], 4, 5), dict(architecture="resnet50") | sizes, pixels, labels)
    wide = dict(architecture="wide_resnet50_2", layers=[1, 1, 1, 1], width=4, width_per_group=128)
    odd = 4 * fill("pixel_values", (2, 3, 71, 50))
    case("wide", small_resnet(Bottleneck, [1, 1, 1, 1], 4, 5, 128), wide, odd, labels[:2], trained=False)
    # no config: the tensors tell
    case("resnet18", small_resnet(BasicBlock, [2, 1, 1, 2], 8, 5), None, pixels, labels)
    plain = [[4], [6, 6], [8], [8], [10, 10]]
    case("vgg", small_vgg(plain, 12, 5, False), dict(architecture="vgg16", stages=plain, hidden_size=12), pixels, labels)
    case("vgg_bn", small_vgg(plain, 12, 5, True), None, odd, labels[:2], trained=False)


def full(directory):
    """Real sizes with random weights, in torchvision's own files."""
    torch.manual_seed(0)
    picture = Path(__file__).resolve().parent.parent / "examples" / "pictures"
    encoded = sorted(p for p in picture.iterdir() if p.suffix == ".png")[0].read_bytes()
    preset = ImageClassification(crop_size=224)
    from io import BytesIO

    from PIL import Image
    processed = preset(Image.open(BytesIO(encoded)).convert("RGB"))[None]
    for name in ("resnet18", "resnet50", "resnet101", "resnet152", "vgg16"):
        model = getattr(torchvision.models, name)().eval()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    # statistics and weights of a network that was trained are not those it begins with
                    module.weight.uniform_(0.2, 0.6)
                    module.bias.normal_(0, 0.1)
                    module.running_mean.normal_(0, 0.2)
                    module.running_var.uniform_(0.5, 2)
            outputs = stages(model, processed) | {"logits": model(processed), "pixel_values": processed}
        folder = Path(directory) / name
        folder.mkdir(parents=True, exist_ok=True)
        config = {"architecture": name, "num_classes": 1000, "library_name": "torchvision"}
        (folder / "config.json").write_text(json.dumps(config))
        torch.save(model.state_dict(), folder / "model.pth")
        golden = {"in.image_bytes": torch.frombuffer(bytearray(encoded), dtype=torch.uint8)}
        golden |= {f"out.{k}": v.contiguous().clone() for k, v in outputs.items()}
        save_file(golden, folder / "golden.safetensors")
        # without the picture's bytes, so that pixels that differ by a grey level do not matter
        del golden["in.image_bytes"], golden["out.pixel_values"]
        save_file(golden | {"in.pixel_values": processed.contiguous()}, folder / "model_golden.safetensors")
        print(name, sum(p.numel() for p in model.parameters()), outputs["features"].abs().max().item())


if __name__ == "__main__":
    if sys.argv[1:2] == ["full"]:
        full(sys.argv[2])
    else:
        small()
