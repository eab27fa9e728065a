"""Writes testdata/models/faster_rcnn: a tiny detector with what torchvision makes of a picture.

    python -m venv VENV && VENV/bin/pip install torch torchvision safetensors
    OMP_NUM_THREADS=1 VENV/bin/python reference/models_detector.py [--full DIR]

Made with torchvision 0.29 and torch 2.15 on a CPU. It is torchvision's `FasterRCNN` with a backbone made of torchvision's
own bottlenecks, few of them and narrow, under the names of `fasterrcnn_resnet50_fpn`. `config.json` has the constructor's
arguments, `model.safetensors` the weights, `golden.safetensors` arguments and results: `in.pixel_values`, `out.boxes`,
`out.scores`, `out.labels`, and what is on the way.

`training_frozen` and `training_batch_norm` hold what training computes of three pictures with their objects (the last has
none): the four losses, the gradients, the statistics of the norms after a step and the losses of ten steps of AdamW. Their
weights are a function of their names, as in reference/models_clip.py. All anchors and proposals are taken, so that nothing
depends on what torchvision draws at random.

With --full the published architecture is written to DIR with random weights, with the names of the released file, and a
golden file, to be compared with `vlm verify DIR --golden DIR/golden.safetensors`; DIR/100-proposals has the same with fewer
proposals, whose order is not a matter of rounding.
"""

import argparse
import copy
import json
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torchvision.models.detection import FasterRCNN, fasterrcnn_resnet50_fpn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.resnet import Bottleneck
from torchvision.ops import FrozenBatchNorm2d, MultiScaleRoIAlign

from known_weights import fill, filled, train

OUT = Path(__file__).resolve().parent.parent / "testdata" / "models" / "faster_rcnn"


GAINS = {"rpn.head.bbox_pred": 0.15, "box_predictor.bbox_pred": 0.7, "box_predictor.cls_score": 1.0}


class Body(nn.Module):
    """A ResNet with the names of torchvision's and any widths."""

    def __init__(self, layers, stem, norm):
        super().__init__()
        self.conv1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False)
        self.bn1 = norm(stem)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        inputs = stem
        for i, blocks in enumerate(layers):
            planes, modules = stem << i, []
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                downsample = None
                if stride != 1 or inputs != 4 * planes:
                    downsample = nn.Sequential(nn.Conv2d(inputs, 4 * planes, 1, stride, bias=False), norm(4 * planes))
                modules.append(Bottleneck(inputs, planes, stride, downsample, norm_layer=norm))
                inputs = 4 * planes
            setattr(self, f"layer{i + 1}", nn.Sequential(*modules))


def spread(model, seed):
    """Random weights with which objects differ in class, place and score."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.state_dict().items():
            if not p.is_floating_point():
                continue
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() > 1:
                gain = next((g for part, g in GAINS.items() if part in name), 1.4)
                p.copy_(noise * gain * p[0].numel() ** -0.5)
            elif name.endswith("running_var") or name.endswith("bn.weight"):
                p.copy_(1 + 0.5 * torch.rand(p.shape, generator=generator))
            elif "bn" in name or "downsample.1" in name:
                p.copy_((1.0 if name.endswith("weight") else 0.0) + 0.1 * noise)
            else:
                p.copy_(0.1 * noise)
    model.eval()


def results(model, pixels):
    """Everything by name."""
    found = {}

    def keep(name):
        def hook(_, __, out):
            found[name] = out
        return hook

    hooks = [
        model.backbone.register_forward_hook(keep("features")),
        model.rpn.head.register_forward_hook(keep("rpn")),
        model.rpn.register_forward_hook(keep("proposals")),
        model.roi_heads.box_predictor.register_forward_hook(keep("head")),
    ]
    with torch.no_grad():
        detections = model(list(pixels))[0]
    for hook in hooks:
        hook.remove()
    out = {"boxes": detections["boxes"], "scores": detections["scores"], "labels": detections["labels"]}
    for i, x in enumerate(found["features"].values()):
        out[f"features.{i}"] = x
    for i, (score, change) in enumerate(zip(*found["rpn"])):
        out[f"objectness.{i}"] = score
        out[f"rpn_deltas.{i}"] = change
    out["proposals"] = found["proposals"][0][0]
    out["class_logits"], out["box_regression"] = found["head"]
    return out


def golden(path, pixels, out, note):
    tensors = {"in.pixel_values": pixels.contiguous()}
    tensors |= {f"out.{k}": v.contiguous().clone() for k, v in out.items()}
    about = {"reference": "torchvision.models.detection", "versions": f"torchvision {torchvision.__version__}", "note": note}
    save_file(tensors, path, metadata={"golden": json.dumps(about)})
    n = len(out["boxes"])
    print(path, n, "objects; labels", out["labels"].tolist()[:12],
          "scores", [round(s, 3) for s in out["scores"].tolist()[:12]])
    if n > 1:
        # where two are as near as rounding, their order is none
        print("  least difference of scores:", (out["scores"][:-1] - out["scores"][1:]).min().item())


def build(layers, stem, fpn, norm, settings, classes):
    """The model and its config.json."""
    backbone = BackboneWithFPN(
        Body(layers, stem, norm),
        {f"layer{i}": str(i - 1) for i in (1, 2, 3, 4)},
        [4 * stem << i for i in range(4)],
        fpn,
    )
    head = torchvision.models.detection.faster_rcnn.TwoMLPHead(fpn * 49, settings["representation_size"])
    predictor = torchvision.models.detection.faster_rcnn.FastRCNNPredictor(settings["representation_size"], classes)
    ours = ("representation_size", "anchor_sizes", "aspect_ratios", "canonical_scale", "norm_layer")
    arguments = {k: v for k, v in settings.items() if k not in ours}
    if "anchor_sizes" in settings:
        sizes, ratios = settings["anchor_sizes"], settings["aspect_ratios"]
        arguments["rpn_anchor_generator"] = AnchorGenerator(tuple((size,) for size in sizes), (tuple(ratios),) * len(sizes))
        arguments["box_roi_pool"] = MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2, canonical_scale=settings["canonical_scale"])
    model = FasterRCNN(backbone, box_head=head, box_predictor=predictor, **arguments)
    config = {"library_name": "torchvision", "architecture": "fasterrcnn_resnet50_fpn", "num_classes": classes,
              "layers": layers, "stem_width": stem, "fpn_channels": fpn} | settings
    return model, config


def small(name, layers, stem, fpn, norm, height, width, seed, settings, classes):
    model, config = build(layers, stem, fpn, norm, settings, classes)
    spread(model, seed)
    directory = OUT / name
    directory.mkdir(parents=True, exist_ok=True)
    if norm is nn.BatchNorm2d:
        config["norm_eps"] = 1e-5
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, directory / "model.safetensors")
    pixels = torch.rand(1, 3, 5, 6, generator=torch.Generator().manual_seed(seed))
    pixels = torch.nn.functional.interpolate(pixels, size=(height, width), mode="bicubic").clamp(0, 1)
    golden(directory / "golden.safetensors", pixels, results(model, pixels), "random weights")


# of each picture its height and width, and the objects in it: a box and a class
# (for norms with statistics of the batch such that little is padding, where all cells and so their scores are equal and
# their order is none)
PICTURES = [
    (52, 73, [(4, 6, 30, 28.5, 1), (35, 10, 70.25, 48, 3), (20, 30, 33, 44, 2)]),
    (64, 60, [(0, 0, 12.5, 20, 2), (8, 4, 55, 60, 4)]),
    (70, 64, []),
]
ALIKE = [
    (52, 60, [(4, 6, 30, 28.5, 1), (35, 10, 58.25, 48, 3), (20, 30, 33, 44, 2)]),
    PICTURES[1],
    (58, 64, []),
]


def training(name, layers, stem, fpn, norm, settings, classes, larger, of=PICTURES):
    torch.manual_seed(0)
    everything = dict(rpn_batch_size_per_image=100000, box_batch_size_per_image=100000)
    model, config = build(layers, stem, fpn, norm, settings | everything, classes)
    directory = OUT / name
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config | {"norm_layer": norm_name(norm)}, indent=2) + "\n")
    model = filled(model, larger).train()
    shapes = {k: list(v.shape) for k, v in model.state_dict().items() if v.is_floating_point()}
    (directory / "weights.json").write_text(json.dumps(shapes, indent=0) + "\n")
    tensors, pictures, targets = {}, [], []
    for i, (height, width, objects) in enumerate(of):
        shape = (3, height, width)
        pictures.append(4 * fill(f"pixel_values.{i}", shape))
        tensors[f"shape.pixel_values.{i}"] = torch.tensor(shape)
        boxes = torch.tensor([o[:4] for o in objects], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([o[4] for o in objects], dtype=torch.int64)
        targets.append({"boxes": boxes, "labels": labels})
        if objects:
            tensors[f"in.boxes.{i}"], tensors[f"in.labels.{i}"] = boxes, labels
    # a copy, for norms with statistics of the batch learn of every pass
    losses = copy.deepcopy(model)(pictures, targets)
    tensors |= {f"out.{k}": v.detach().reshape(1) for k, v in losses.items()}
    train(model, lambda: sum(model(pictures, targets).values()), tensors)
    tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    about = {"reference": "torchvision.models.detection", "versions": f"torchvision {torchvision.__version__}"}
    save_file(tensors, directory / "golden.safetensors", metadata={"golden": json.dumps(about)})
    print(name, f"{sum(f.stat().st_size for f in directory.iterdir()) / 1024:.0f} KiB",
          {k: round(v.item(), 4) for k, v in losses.items()}, [round(x, 4) for x in tensors["losses"].tolist()])


def norm_name(norm):
    return norm(1).__class__.__name__


def full(directory):
    torch.manual_seed(1)
    directory.mkdir(parents=True, exist_ok=True)
    model = fasterrcnn_resnet50_fpn(weights=None, weights_backbone=None, num_classes=91)
    # published weights have norms that stay as they are and add nothing to the variance
    generator = torch.Generator().manual_seed(2)
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.BatchNorm2d):
            frozen = FrozenBatchNorm2d(module.num_features, eps=0.0)
            frozen.weight.uniform_(0.5, 1.0, generator=generator)
            frozen.bias.normal_(0, 0.1, generator=generator)
            frozen.running_mean.normal_(0, 0.1, generator=generator)
            frozen.running_var.uniform_(0.5, 1.5, generator=generator)
            parent, _, child = name.rpartition(".")
            setattr(model.get_submodule(parent), child, frozen)
    with torch.no_grad():
        # apart from each other, and not all background
        model.roi_heads.box_predictor.cls_score.weight.mul_(8)
        model.roi_heads.box_predictor.bbox_pred.weight.mul_(5)
        model.rpn.head.bbox_pred.weight.mul_(2)
        model.rpn.head.cls_logits.weight.mul_(20)
    model.eval()
    # as the released file of 2018 names them
    state = {}
    for name, value in model.state_dict().items():
        name = name.replace("rpn.head.conv.0.0.", "rpn.head.conv.")
        for part in ("inner_blocks", "layer_blocks"):
            for i in range(4):
                name = name.replace(f"{part}.{i}.0.", f"{part}.{i}.")
        state[name] = value.contiguous()
    pixels = torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(3))
    pixels = torch.nn.functional.interpolate(pixels, size=(480, 640), mode="bicubic").clamp(0, 1)
    config = {"library_name": "torchvision", "architecture": "fasterrcnn_resnet50_fpn", "num_classes": 91}
    for directory, count in ((directory, 1000), (directory / "100-proposals", 100)):
        directory.mkdir(parents=True, exist_ok=True)
        save_file(state, directory / "model.safetensors")
        counts = {"rpn_pre_nms_top_n_test": count, "rpn_post_nms_top_n_test": count}
        (directory / "config.json").write_text(json.dumps(config | counts) + "\n")
        model.rpn._pre_nms_top_n["testing"] = model.rpn._post_nms_top_n["testing"] = count
        out = results(model, pixels)
        # among many proposals some scores are as near as rounding, and their order is none: torchvision's own, in double
        # precision, is another one
        exact = results(copy.deepcopy(model).double(), pixels.double())
        moved = ((out["proposals"] - exact["proposals"]).abs().amax(1) > 0.01).sum().item()
        print(f"{count} proposals, in double precision {moved} of them in other places")
        if moved:
            for name in ("proposals", "class_logits", "box_regression"):
                del out[name]
        golden(directory / "golden.safetensors", pixels, out, "random weights")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.full:
        full(args.full)
    else:
        settings = dict(min_size=64, max_size=100, rpn_pre_nms_top_n_test=40, rpn_post_nms_top_n_test=24,
                        box_score_thresh=0.05, box_nms_thresh=0.5, box_detections_per_img=12, representation_size=12)
        small("frozen", [1, 2, 1, 1], 2, 4, lambda n: FrozenBatchNorm2d(n, eps=0.0), 40, 61, 1, settings, 5)
        settings |= dict(min_size=48, max_size=70, rpn_nms_thresh=0.6, rpn_score_thresh=0.4, box_nms_thresh=0.45,
                         image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4], box_detections_per_img=100)
        small("batch_norm", [1, 1, 1, 1], 2, 3, nn.BatchNorm2d, 90, 33, 2, settings, 3)
        settings = dict(min_size=96, max_size=140, representation_size=12, rpn_pre_nms_top_n_train=60,
                        rpn_post_nms_top_n_train=40)
        frozen = lambda n: FrozenBatchNorm2d(n, eps=0.0)
        larger = [("rpn.head.cls_logits", 4), ("backbone.body", 1.5), ("backbone.fpn", 2), ("roi_heads.box_predictor", 2)]
        training("training_frozen", [1, 2, 1, 1], 2, 4, frozen, settings, 5, larger)
        # so small that torchvision takes the pyramid for a finer one
        training("training_small", [1, 2, 1, 1], 2, 4, frozen, settings | dict(min_size=40, max_size=90), 5, larger)
        settings |= dict(min_size=55, max_size=64, anchor_sizes=[8, 16, 32, 64, 128], aspect_ratios=[0.5, 1.0],
                         canonical_scale=56, rpn_fg_iou_thresh=0.6, rpn_bg_iou_thresh=0.25, box_fg_iou_thresh=0.55,
                         box_bg_iou_thresh=0.4, rpn_nms_thresh=0.6)
        larger = [("rpn.head.cls_logits", 4), ("rpn.head.bbox_pred", 2), ("backbone.fpn", 3), ("roi_heads.box_predictor", 4)]
        training("training_batch_norm", [1, 1, 1, 1], 2, 3, nn.BatchNorm2d, settings, 5, larger, ALIKE)
