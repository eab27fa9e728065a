"""Writes testdata/models/vinvl: tiny detectors of VinVL's kind with what a plain PyTorch script makes of a picture.

    python -m venv VENV && VENV/bin/pip install torch torchvision safetensors
    OMP_NUM_THREADS=1 VENV/bin/python reference/models_vinvl.py
    OMP_NUM_THREADS=1 VENV/bin/python reference/models_vinvl.py full DIRECTORY   (real sizes, outside the repository)

maskrcnn-benchmark and the authors' code are packaged nowhere. This follows the papers (Ren et al., "Faster R-CNN", 2015;
Zhang et al., "VinVL", 2021), the names of the released checkpoint and the settings of the released commands; RoIAlign is
torchvision's. One folder per model: config.json (thresholds), model.safetensors, golden.safetensors with `in.*`, `out.*`.

`training` and `training_own` hold what training computes, after maskrcnn-benchmark's `rpn/loss.py` and
`roi_heads/box_head/loss.py` as the authors have them, and their `attribute_head/loss.py`: five losses, gradients and the
losses of ten steps of AdamW, of weights that are a function of their names. All anchors and proposals are taken, so that
nothing is drawn at random.
"""

import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn
from torchvision.ops import roi_align

from known_weights import fill, filled, train

OUT = Path(__file__).resolve().parent.parent / "testdata" / "models" / "vinvl"


class FrozenNorm(nn.Module):
    def __init__(self, n):
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.zeros(n))

    def forward(self, x):
        scale = self.weight * self.running_var.rsqrt()
        return x * scale[:, None, None] + (self.bias - self.running_mean * scale)[:, None, None]


class Block(nn.Module):
    def __init__(self, inputs, inner, outputs, groups, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, inner, 1, bias=False), FrozenNorm(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = FrozenNorm(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outputs, 1, bias=False), FrozenNorm(outputs)
        if inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), FrozenNorm(outputs))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (self.downsample(x) if hasattr(self, "downsample") else x))


def stage(i, blocks, stem, width, groups, per_group):
    inputs = stem if i == 0 else width << (i - 1)
    inner, outputs = (groups * per_group) << i, width << i
    layers = [Block(inputs if j == 0 else outputs, inner, outputs, groups, 2 if i > 0 and j == 0 else 1)
              for j in range(blocks)]
    return nn.Sequential(*layers)


class Part(nn.Module):
    pass


def decode(change, boxes, weights):
    w, h = boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
    x, y = boxes[:, 0] + 0.5 * w, boxes[:, 1] + 0.5 * h
    dx, dy, dw, dh = (change[..., i] / weights[i] for i in range(4))
    dw, dh = dw.clamp(max=math.log(1000 / 16)), dh.clamp(max=math.log(1000 / 16))
    x, y, w, h = dx * w + x, dy * h + y, dw.exp() * w, dh.exp() * h
    return torch.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w - 1, y + 0.5 * h - 1], -1)


def clip(boxes, height, width):
    limits = torch.tensor([width - 1, height - 1, width - 1, height - 1], dtype=torch.float32)
    return torch.minimum(boxes.clamp(min=0), limits)


def nms(boxes, scores, threshold):
    kept = []
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    for i in scores.argsort(descending=True, stable=True).tolist():
        a, others = boxes[i], boxes[kept]
        w = (torch.minimum(a[2], others[:, 2]) - torch.maximum(a[0], others[:, 0]) + 1).clamp(min=0)
        h = (torch.minimum(a[3], others[:, 3]) - torch.maximum(a[1], others[:, 1]) + 1).clamp(min=0)
        if not (w * h / (area[i] + area[kept] - w * h) > threshold).any():
            kept.append(i)
    return kept


def anchors(rows, columns):
    """Around the middle of a cell of 16 pixels, sides rounded before they are scaled."""
    cell = []
    for ratio in (0.5, 1.0, 2.0):
        w = round(math.sqrt(256 / ratio))
        h = round(w * ratio)
        for size in (32, 64, 128, 256, 512):
            sw, sh = w * size / 16, h * size / 16
            cell.append([7.5 - (sw - 1) / 2, 7.5 - (sh - 1) / 2, 7.5 + (sw - 1) / 2, 7.5 + (sh - 1) / 2])
    cell = torch.tensor(cell)
    y, x = torch.meshgrid(torch.arange(rows) * 16, torch.arange(columns) * 16, indexing="ij")
    shift = torch.stack([x, y, x, y], -1).reshape(-1, 1, 4)
    return (shift + cell).reshape(-1, 4)


class Detector(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        stem, width, groups, per_group = c["stem"], c["width"], c["groups"], c["per_group"]
        body = Part()
        body.stem = Part()
        body.stem.conv1, body.stem.bn1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False), FrozenNorm(stem)
        for i, blocks in enumerate(c["layers"]):
            setattr(body, f"layer{i + 1}", stage(i, blocks, stem, width, groups, per_group))
        self.backbone = Part()
        self.backbone.body = body
        out, dim = width << 2, width << 3
        self.rpn = Part()
        self.rpn.head = Part()
        self.rpn.head.conv = nn.Conv2d(out, out, 3, padding=1)
        self.rpn.head.cls_logits, self.rpn.head.bbox_pred = nn.Conv2d(out, 15, 1), nn.Conv2d(out, 60, 1)

        def extractor():
            part = Part()
            part.head = Part()
            part.head.layer4 = stage(3, c["head"], stem, width, groups, per_group)
            return part

        self.roi_heads = Part()
        self.roi_heads.box = box = Part()
        box.feature_extractor = extractor()
        box.predictor = Part()
        box.predictor.cls_score = nn.Linear(dim, c["classes"])
        box.predictor.bbox_pred = nn.Linear(dim, 4 * c["classes"])
        self.attribute = Part()
        self.attribute.feature_extractor = extractor() if c["own"] else box.feature_extractor
        self.attribute.predictor = p = Part()
        p.cls_embedding = nn.Embedding(c["classes"], c["embedding"])
        p.fc_attr = nn.Linear(dim + c["embedding"], c["hidden"])
        p.attr_score = nn.Linear(c["hidden"], c["attributes"])

    def pooled(self, extractor, features, boxes):
        rois = torch.cat([torch.zeros(len(boxes), 1), boxes], 1)
        x = roi_align(features, rois, (14, 14), spatial_scale=1 / 16, sampling_ratio=-1, aligned=False)
        return extractor.head.layer4(x).mean((2, 3))

    def forward(self, pixels):
        c, body = self.c, self.backbone.body
        _, _, height, width = pixels.shape
        x = F.relu(body.stem.bn1(body.stem.conv1(pixels)))
        x = F.max_pool2d(x, 3, 2, 1)
        for i in (1, 2, 3):
            x = getattr(body, f"layer{i}")(x)
        features = x
        y = F.relu(self.rpn.head.conv(features))
        objectness, deltas = self.rpn.head.cls_logits(y), self.rpn.head.bbox_pred(y)
        rows, columns = objectness.shape[2:]
        scores = objectness[0].permute(1, 2, 0).reshape(-1).sigmoid()
        change = deltas[0].permute(1, 2, 0).reshape(-1, 4)
        top = scores.topk(min(c["pre"], len(scores)))
        boxes = decode(change[top.indices], anchors(rows, columns)[top.indices], (1, 1, 1, 1))
        boxes = clip(boxes, height, width)
        proposals = boxes[nms(boxes, top.values, c["rpn_nms"])[: c["post"]]]

        regions = self.pooled(self.roi_heads.box.feature_extractor, features, proposals)
        predictor = self.roi_heads.box.predictor
        logits, regression = predictor.cls_score(regions), predictor.bbox_pred(regions)
        probs = logits.softmax(-1)
        n, k = probs.shape
        if c["ignore"]:
            fitted = proposals[:, None].expand(n, k, 4)
        else:
            fitted = decode(regression.view(n, k, 4).transpose(0, 1), proposals, (10, 10, 5, 5)).transpose(0, 1)
            fitted = clip(fitted, height, width)
        kept = torch.zeros_like(probs)
        for j in range(1, k):
            kept[nms(fitted[:, j], probs[:, j], 0.3), j] = 1
        best, labels = (kept * probs).max(1)
        order = best.argsort(descending=True, stable=True)
        order = order[best[order] > 0]
        likely = int((best >= c["thresh"]).sum())
        order = order[: min(max(likely, c["least"]), max(c["most"], c["least"]))]
        found, labels = fitted[order, labels[order]], labels[order]

        x = self.pooled(self.attribute.feature_extractor, features, found)
        p = self.attribute.predictor
        x = F.relu(p.fc_attr(torch.cat([x, p.cls_embedding(labels)], 1)))
        return dict(features=features, objectness=objectness, rpn_deltas=deltas, proposals=proposals,
                    class_logits=logits, box_regression=regression, boxes=found, scores=best[order], labels=labels,
                    box_features=regions[order], attribute_probs=p.attr_score(x).softmax(-1))


def overlaps(objects, boxes):
    """Intersection over union, the last pixel belonging to a box."""
    area = lambda b: (b[:, 2] - b[:, 0] + 1) * (b[:, 3] - b[:, 1] + 1)
    a, b = objects[:, None], boxes[None]
    sides = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2]) + 1).clamp(min=0)
    shared = sides[..., 0] * sides[..., 1]
    return shared / (area(objects)[:, None] + area(boxes)[None] - shared)


def matched(objects, boxes, high, low, low_quality):
    """The object that each box is learned as, -1 for background, -2 for none of both."""
    if len(objects) == 0:
        return torch.full((len(boxes),), -1)
    quality = overlaps(objects, boxes)
    values, best = quality.max(0)
    found = best.clone()
    found[values < low] = -1
    found[(values >= low) & (values < high)] = -2
    if low_quality:
        highest = (quality == quality.max(1, keepdim=True).values).any(0)
        found[highest] = best[highest]
    return found


def encode(objects, boxes, weights):
    w, h = boxes[:, 2] - boxes[:, 0] + 1, boxes[:, 3] - boxes[:, 1] + 1
    x, y = boxes[:, 0] + 0.5 * w, boxes[:, 1] + 0.5 * h
    ow, oh = objects[:, 2] - objects[:, 0] + 1, objects[:, 3] - objects[:, 1] + 1
    ox, oy = objects[:, 0] + 0.5 * ow, objects[:, 1] + 0.5 * oh
    wx, wy, ww, wh = weights
    return torch.stack([wx * (ox - x) / w, wy * (oy - y) / h, ww * (ow / w).log(), wh * (oh / h).log()], 1)


def smooth_l1(x, target, beta):
    n = (x - target).abs()
    return torch.where(n < beta, 0.5 * n**2 / beta, n - 0.5 * beta).sum()


def losses(model, pictures, targets):
    """Every loss; `targets` have boxes, labels and attributes, rows of numbers that zeros fill up."""
    c, body = model.c, model.backbone.body
    height, width = (max(p.shape[i] for p in pictures) for i in (1, 2))
    x = torch.stack([F.pad(p, (0, width - p.shape[2], 0, height - p.shape[1])) for p in pictures])
    x = F.max_pool2d(F.relu(body.stem.bn1(body.stem.conv1(x))), 3, 2, 1)
    for i in (1, 2, 3):
        x = getattr(body, f"layer{i}")(x)
    features = x
    y = F.relu(model.rpn.head.conv(features))
    scores, deltas = model.rpn.head.cls_logits(y), model.rpn.head.bbox_pred(y)
    all_anchors = anchors(*scores.shape[2:])
    n = len(pictures)
    scores = scores.permute(0, 2, 3, 1).reshape(n, -1)
    deltas = deltas.permute(0, 2, 3, 1).reshape(n, -1, 4)
    sampled, truths, moved, goals = [], [], [], []
    regions, labels, targets_of, owners = [], [], [], []
    for i, (picture, t) in enumerate(zip(pictures, targets)):
        _, h, w = picture.shape
        found = matched(t["boxes"], all_anchors, c["rpn_fg"], c["rpn_bg"], True)
        inside = (all_anchors[:, 0] >= 0) & (all_anchors[:, 1] >= 0) & (all_anchors[:, 2] < w) & (all_anchors[:, 3] < h)
        found[~inside] = -2
        kept = found != -2
        sampled.append(scores[i][kept])
        truths.append((found[kept] >= 0).float())
        positive = found >= 0
        if positive.any():
            moved.append(deltas[i][positive])
            goals.append(encode(t["boxes"][found[positive]], all_anchors[positive], (1, 1, 1, 1)))
        with torch.no_grad():
            top = scores[i].sigmoid().topk(min(c["pre"], scores.shape[1]))
            boxes = clip(decode(deltas[i][top.indices], all_anchors[top.indices], (1, 1, 1, 1)), h, w)
            boxes = torch.cat([boxes[nms(boxes, top.values, c["rpn_nms"])[: c["post"]]], t["boxes"]])
            found = matched(t["boxes"], boxes, 0.5, c["bg"], False)
            boxes, found = boxes[found != -2], found[found != -2]
        regions.append(torch.cat([torch.full((len(boxes), 1), float(i)), boxes], 1))
        owners += [(i, int(f)) for f in found]
        labels += [0 if f < 0 else int(t["labels"][f]) for f in found]
        targets_of += [torch.zeros(4) if f < 0 else encode(t["boxes"][f][None], b[None], (10, 10, 5, 5))[0]
                       for f, b in zip(found, boxes)]
    sampled, truths = torch.cat(sampled), torch.cat(truths)
    out = {"loss_objectness": F.binary_cross_entropy_with_logits(sampled, truths),
           "loss_rpn_box_reg": smooth_l1(torch.cat(moved), torch.cat(goals), 1 / 9) / len(sampled)}
    regions, labels = torch.cat(regions), torch.tensor(labels)
    def pooled(extractor, regions):
        x = roi_align(features, regions, (14, 14), spatial_scale=1 / 16, sampling_ratio=-1, aligned=False)
        return extractor.head.layer4(x).mean((2, 3))
    x = pooled(model.roi_heads.box.feature_extractor, regions)
    predictor = model.roi_heads.box.predictor
    logits, change = predictor.cls_score(x), predictor.bbox_pred(x)
    out["loss_classifier"] = F.cross_entropy(logits, labels)
    positive = torch.where(labels > 0)[0]
    change = change.view(len(labels), -1, 4)[positive, labels[positive]]
    out["loss_box_reg"] = smooth_l1(change, torch.stack(targets_of)[positive], 1.0) / len(labels)
    own = model.attribute.feature_extractor is not model.roi_heads.box.feature_extractor
    x = pooled(model.attribute.feature_extractor, regions[positive]) if own else x[positive]
    p = model.attribute.predictor
    x = F.relu(p.fc_attr(torch.cat([x, p.cls_embedding(labels[positive])], 1)))
    told = p.attr_score(x)
    soft = torch.zeros_like(told)
    for row, at in zip(soft, positive.tolist()):
        i, object = owners[at]
        some = [a for a in targets[i]["attributes"][object].tolist() if a > 0]
        for a in some:
            row[a] = 1 / len(some)
    out["loss_attribute"] = 0.5 * torch.mean(torch.sum(-soft * F.log_softmax(told, 1), 1))
    return out, (int(truths.sum()), len(truths), len(positive), len(labels))


# little of which is padding, where all cells and so their scores are equal and their order is none: of each its height
# and width, and the objects in it: a box, a class and up to three attributes
PICTURES = [
    (150, 190, [(14, 26, 60, 70, 1, (1, 3, 4)), (85, 10, 170.25, 120, 3, (2, 0, 0)), (50, 60, 83, 94, 6, (0, 0, 0))]),
    (128, 180, [(10, 20, 42.5, 50, 2, (4, 1, 0))]),
    (140, 176, []),
]


def training(name, larger, **fields):
    c = dict(layers=[1, 1, 2], head=1, stem=4, width=8, groups=2, per_group=2, classes=7, attributes=5, pre=60, post=20,
             rpn_nms=0.7, rpn_fg=0.7, rpn_bg=0.3, bg=0.5, own=False, embedding=6, hidden=10) | fields
    torch.manual_seed(0)
    model = Detector(c)
    model = filled(model, larger).train()
    names = list(model.state_dict())
    if not c["own"]:
        # one stage under two names has the weights of the first
        names = [k for k in names if not k.startswith("attribute.feature_extractor.")]
        box = model.roi_heads.box.feature_extractor
        del model.attribute.feature_extractor
        filled(model, larger).train()
        model.attribute.feature_extractor = box
    directory = OUT / name
    directory.mkdir(parents=True, exist_ok=True)
    config = dict(model_type="vinvl", num_classes=c["classes"], num_attributes=c["attributes"],
                  rpn_pre_nms_top_n_train=c["pre"], rpn_post_nms_top_n_train=c["post"], rpn_nms_thresh=c["rpn_nms"],
                  rpn_fg_iou_threshold=c["rpn_fg"], rpn_bg_iou_threshold=c["rpn_bg"], bg_iou_threshold=c["bg"],
                  rpn_batch_size_per_image=100000, batch_size_per_image=100000)
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (directory / "weights.json").write_text(json.dumps({k: list(model.state_dict()[k].shape) for k in names}, indent=0) + "\n")
    tensors, pictures, targets = {}, [], []
    for i, (height, width, objects) in enumerate(PICTURES):
        shape = (3, height, width)
        # the third power, for sums of products of few levels would be equal in neighbouring cells, of which the pooling
        # takes the first or the last
        x = 4 * fill(f"pixel_values.{i}", shape)
        pictures.append(x * x * x)
        tensors[f"shape.pixel_values.{i}"] = torch.tensor(shape)
        boxes = torch.tensor([o[:4] for o in objects], dtype=torch.float32).reshape(-1, 4)
        labels = torch.tensor([o[4] for o in objects], dtype=torch.int64)
        attributes = torch.tensor([o[5] for o in objects], dtype=torch.int64)
        targets.append({"boxes": boxes, "labels": labels, "attributes": attributes})
        if objects:
            tensors |= {f"in.boxes.{i}": boxes, f"in.labels.{i}": labels, f"in.attributes.{i}": attributes}
    parts, counts = losses(model, pictures, targets)
    tensors |= {f"out.{k}": v.detach().reshape(1) for k, v in parts.items()}
    train(model, lambda: sum(losses(model, pictures, targets)[0].values()), tensors)
    tensors = {k: v.detach().contiguous().clone() for k, v in tensors.items()}
    save_file(tensors, directory / "golden.safetensors")
    print(name, counts, {k: round(v.item(), 4) for k, v in parts.items()}, [round(x, 4) for x in tensors["losses"].tolist()])


def spread(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.state_dict().items():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() > 1:
                gain = {"rpn.head.bbox_pred.weight": 0.1, "roi_heads.box.predictor.bbox_pred.weight": 0.5,
                        "roi_heads.box.predictor.cls_score.weight": 2.5}.get(name, 1.4)
                p.copy_(noise * gain * p[0].numel() ** -0.5)
            elif name.endswith("running_var"):
                p.copy_(1 + 0.5 * torch.rand(p.shape, generator=generator))
            elif name.endswith("weight"):
                p.copy_(0.8 + 0.1 * noise)
            else:
                p.copy_(0.1 * noise)
        # levels of up to 255 become numbers of the size of one
        model.backbone.body.stem.conv1.weight.mul_(0.02)


def write(name, seed, rows, columns, folder=OUT, **fields):
    c = dict(layers=[1, 1, 2], head=1, stem=4, width=8, groups=2, per_group=2, classes=7, attributes=5, pre=60, post=20,
             rpn_nms=0.7, thresh=0.2, least=4, most=9, ignore=False, own=False, embedding=6, hidden=10) | fields
    torch.manual_seed(seed)
    model = Detector(c).eval()
    spread(model, seed)
    if folder != OUT:
        # fifty blocks of such weights would grow without bound
        for key, p in model.state_dict().items():
            p.mul_(0.2 if key.endswith("bn3.weight") else 1)
    pixels = torch.rand(1, 3, 4, 5, generator=torch.Generator().manual_seed(seed)) * 255
    pixels = F.interpolate(pixels, size=(rows, columns), mode="bicubic").clamp(0, 255)
    pixels = pixels - torch.tensor([103.53, 116.28, 123.675])[:, None, None]
    with torch.no_grad():
        out = model(pixels)
    directory = folder / name
    directory.mkdir(parents=True, exist_ok=True)
    config = dict(model_type="vinvl", num_classes=c["classes"], num_attributes=c["attributes"],
                  rpn_pre_nms_top_n_test=c["pre"], rpn_post_nms_top_n_test=c["post"], rpn_nms_thresh=c["rpn_nms"],
                  score_thresh=c["thresh"], min_detections_per_img=c["least"], detections_per_img=c["most"],
                  ignore_box_regression=c["ignore"])
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_file({k: v.clone().contiguous() for k, v in model.state_dict().items()}, directory / "model.safetensors")
    tensors = {"in.pixel_values": pixels} | {f"out.{k}": v.contiguous().clone() for k, v in out.items()}
    save_file(tensors, directory / "golden.safetensors")
    print(name, len(out["proposals"]), "proposals, labels", out["labels"].tolist(),
          "scores", [round(s, 3) for s in out["scores"].tolist()])


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["full"]:
        # ResNeXt-152 32x8d, C4, as released: 1,593 classes and the background, 524 attributes and none
        write("vinvl", 23, 600, 800, Path(sys.argv[2]), layers=[3, 8, 36], head=3, stem=64, width=256, groups=32, per_group=8,
              classes=1594, attributes=525, embedding=256, hidden=512, pre=6000, post=300, least=10, most=100)
        sys.exit()
    write("fitted", 21, 150, 190)
    write("proposed", 22, 130, 96, ignore=True, own=True, groups=1, per_group=3, thresh=0.1, least=10, most=30)
    factors = [("roi_heads.box.predictor", 2), ("attribute.predictor", 2)]
    training("training", factors, pre=80)
    training("training_own", factors, own=True, groups=1, per_group=4, rpn_fg=0.6, rpn_bg=0.2, bg=0.3)
