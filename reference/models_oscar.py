"""Writes testdata/models/oscar: tiny random Oscar+ models, and what their papers and released code make of inputs.

    python -m venv VENV && VENV/bin/pip install torch transformers safetensors
    OMP_NUM_THREADS=1 VENV/bin/python reference/models_oscar.py
    OMP_NUM_THREADS=1 VENV/bin/python reference/models_oscar.py full DIRECTORY   (real sizes, outside the repository)

The authors' code is packaged nowhere. This is the model of the papers (Li et al., "Oscar", 2020; Zhang et al., "VinVL",
2021) in plain PyTorch, under the names of the released checkpoints, with the losses of pre-training, captioning, VQA,
retrieval and NLVR2. The BERT in it is compared here with transformers' `BertModel`. Generation feeds the whole sequence
anew for every token, a [MASK] at its end, under the attention mask of the released captioner.

One folder per model: config.json with the fields that the released ones have, model.safetensors, golden.safetensors with
`in.*`, `out.*`, `grad.NAME` (length of a parameter's gradient and its product with a pattern) and `losses` of ten steps
of AdamW. States of padding are zeros, because the released code gives them values that nothing reads.
"""

import json
import math
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

OUT = Path(__file__).resolve().parent.parent / "testdata" / "models" / "oscar"
SIZES = dict(vocab_size=30, hidden_size=12, num_hidden_layers=2, num_attention_heads=3, intermediate_size=20,
             max_position_embeddings=48, type_vocab_size=2, layer_norm_eps=1e-12, hidden_act="gelu",
             img_feature_dim=10, img_feature_type="faster_r-cnn", hidden_dropout_prob=0.1,
             attention_probs_dropout_prob=0.1, initializer_range=0.02, output_attentions=False,
             output_hidden_states=False, torchscript=False, pruned_heads={}, finetuning_task=None)
PAD, UNK, CLS, SEP, MASK = 0, 1, 2, 3, 4


def fill(name, shape):
    """Numbers from -0.25 to 0.25 in steps of 1/512 by name and place; as in models_clip.py."""
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


class Config:
    def __init__(self, fields):
        self.__dict__.update(SIZES | fields)
        self.fields = SIZES | fields


class Layer(nn.Module):
    """Self-attention and MLP, a norm after each sum, under BERT's names."""

    def __init__(self, c):
        super().__init__()
        d, eps = c.hidden_size, c.layer_norm_eps
        self.heads = c.num_attention_heads
        part = nn.Module
        self.attention = part()
        self.attention.self = part()
        for name in ("query", "key", "value"):
            setattr(self.attention.self, name, nn.Linear(d, d))
        self.attention.output = part()
        self.attention.output.dense = nn.Linear(d, d)
        self.attention.output.LayerNorm = nn.LayerNorm(d, eps=eps)
        self.intermediate = part()
        self.intermediate.dense = nn.Linear(d, c.intermediate_size)
        self.output = part()
        self.output.dense = nn.Linear(c.intermediate_size, d)
        self.output.LayerNorm = nn.LayerNorm(d, eps=eps)

    def forward(self, x, bias):
        b, t, d = x.shape
        heads = lambda y: y.view(b, t, self.heads, d // self.heads).transpose(1, 2)
        q, k, v = (heads(getattr(self.attention.self, n)(x)) for n in ("query", "key", "value"))
        scores = q @ k.transpose(-1, -2) / math.sqrt(d // self.heads) + bias
        y = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, t, d)
        x = self.attention.output.LayerNorm(self.attention.output.dense(y) + x)
        y = self.output.dense(F.gelu(self.intermediate.dense(x)))
        return self.output.LayerNorm(y + x)


class Bert(nn.Module):
    """BERT over words and regions."""

    def __init__(self, c):
        super().__init__()
        d = c.hidden_size
        self.embeddings = nn.Module()
        self.embeddings.word_embeddings = nn.Embedding(c.vocab_size, d, padding_idx=0)
        self.embeddings.position_embeddings = nn.Embedding(c.max_position_embeddings, d)
        self.embeddings.token_type_embeddings = nn.Embedding(c.type_vocab_size, d)
        self.embeddings.LayerNorm = nn.LayerNorm(d, eps=c.layer_norm_eps)
        self.encoder = nn.Module()
        self.encoder.layer = nn.ModuleList(Layer(c) for _ in range(c.num_hidden_layers))
        self.pooler = nn.Module()
        self.pooler.dense = nn.Linear(d, d)
        self.img_embedding = nn.Linear(c.img_feature_dim, d)
        if getattr(c, "use_img_layernorm", None):
            self.LayerNorm = nn.LayerNorm(d, eps=c.img_layer_norm_eps)

    def forward(self, input_ids, attention_mask, token_type_ids, img_feats=None, position_ids=None):
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1]).expand_as(input_ids)
        e = self.embeddings
        x = e.word_embeddings(input_ids) + e.position_embeddings(position_ids) + e.token_type_embeddings(token_type_ids)
        x = e.LayerNorm(x)
        if img_feats is not None:
            y = self.img_embedding(img_feats)
            if hasattr(self, "LayerNorm"):
                y = self.LayerNorm(y)
            x = torch.cat([x, y], 1)
        seen = attention_mask[:, None, None] if attention_mask.dim() == 2 else attention_mask[:, None]
        bias = (1.0 - seen.float()) * -10000.0
        states = [x]
        for layer in self.encoder.layer:
            x = layer(x, bias)
            states.append(x)
        return x, torch.tanh(self.pooler.dense(x[:, 0])), states


class Predictions(nn.Module):
    """The masked-language-model head, tied to the word embeddings."""

    def __init__(self, c, word):
        super().__init__()
        self.transform = nn.Module()
        self.transform.dense = nn.Linear(c.hidden_size, c.hidden_size)
        self.transform.LayerNorm = nn.LayerNorm(c.hidden_size, eps=c.layer_norm_eps)
        self.decoder = nn.Linear(c.hidden_size, c.vocab_size, bias=False)
        self.decoder.weight = word.weight
        self.bias = nn.Parameter(torch.zeros(c.vocab_size))

    def forward(self, x):
        return self.decoder(self.transform.LayerNorm(F.gelu(self.transform.dense(x)))) + self.bias


class Pretraining(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.bert = Bert(c)
        self.cls = nn.Module()
        self.cls.predictions = Predictions(c, self.bert.embeddings.word_embeddings)
        self.cls.seq_relationship = nn.Linear(c.hidden_size, c.num_contrast_classes)

    def forward(self, masked_lm_labels, next_sentence_label, **inputs):
        x, pooled, states = self.bert(**inputs)
        scores, relation = self.cls.predictions(x), self.cls.seq_relationship(pooled)
        # labels of the regions are -1 as well
        text = scores[:, : masked_lm_labels.shape[1]]
        masked = F.cross_entropy(text.flatten(0, 1), masked_lm_labels.flatten(), ignore_index=-1)
        contrast = F.cross_entropy(relation, next_sentence_label, ignore_index=-1)
        return dict(loss=masked + contrast, masked_lm_loss=masked, seq_relationship_score=relation,
                    pooled_output=pooled, states=states, prediction_scores=scores)


class Captioning(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.bert = Bert(c)
        self.cls = nn.Module()
        self.cls.predictions = Predictions(c, self.bert.embeddings.word_embeddings)
        self.smoothing = c.label_smoothing

    def loss(self, logits, target):
        """Divergence from the smoothed one-hot distribution, its entropy included."""
        n = logits.shape[1]
        wanted = F.one_hot(target, n).float()
        wanted = wanted * (1 - self.smoothing) + (1 - wanted) * self.smoothing / (n - 1)
        return F.kl_div(F.log_softmax(logits, 1), wanted, reduction="none").sum(1).mean()

    def forward(self, masked_pos, masked_ids, **inputs):
        x, _, states = self.bert(**inputs)
        logits = self.cls.predictions(x[:, : masked_pos.shape[1]][masked_pos == 1])
        return dict(loss=self.loss(logits, masked_ids[masked_ids != 0]), class_logits=logits, states=states)

    def generate(self, input_ids, attention_mask, token_type_ids, img_feats, max_length, od_labels_start_posid):
        """Greedy, everything anew for every token."""
        rows, total = input_ids.shape
        labels = input_ids[:, max_length:]
        start = max(od_labels_start_posid, max_length)
        ids = torch.full((rows, 1), CLS)
        alive = torch.ones(rows, dtype=torch.long)
        while ids.shape[1] < max_length:
            now = ids.shape[1] + 1
            keep = torch.cat([torch.arange(now), torch.arange(max_length, attention_mask.shape[1])])
            mask = attention_mask[:, keep][:, :, keep]
            text = keep[keep < total]
            positions = torch.where(text < max_length, text, text - max_length + start).expand(rows, -1)
            tokens = torch.cat([ids, torch.full((rows, 1), MASK), labels], 1)
            x, _, _ = self.bert(tokens, mask, token_type_ids[:, text], img_feats, positions)
            best = self.cls.predictions(x[:, now - 1]).argmax(-1)
            new = best * alive + PAD * (1 - alive)
            ids = torch.cat([ids, new[:, None]], 1)
            alive = alive * (new != SEP).long()
            if alive.max() == 0:
                break
        if ids.shape[1] == max_length:
            ids[:, -1].masked_fill_(alive.bool(), SEP)
        return F.pad(ids, (0, max_length - ids.shape[1]), value=PAD)


class Classification(nn.Module):
    """VQA, retrieval and, with several triplets to one answer, NLVR2."""

    def __init__(self, c):
        super().__init__()
        self.bert = Bert(c)
        self.choices = getattr(c, "num_choice", 1)
        self.loss_type = c.loss_type
        d, n = c.hidden_size, c.num_labels
        if c.classifier == "linear":
            self.classifier = nn.Linear(self.choices * d, n)
        else:
            hidden = d * c.cls_hidden_scale
            norm = [nn.LayerNorm(hidden, eps=c.layer_norm_eps)] if getattr(c, "use_img_layernorm", None) else []
            norm = norm if self.choices > 1 else []
            self.classifier = nn.Sequential(nn.Linear(self.choices * d, hidden), nn.ReLU(), *norm, nn.Linear(hidden, n))

    def forward(self, labels, **inputs):
        flat = {k: v.flatten(0, 1) if self.choices > 1 else v for k, v in inputs.items()}
        _, pooled, states = self.bert(**flat)
        logits = self.classifier(pooled.reshape(-1, self.choices * pooled.shape[1]))
        if self.loss_type == "bce":
            loss = F.binary_cross_entropy_with_logits(logits, labels) * labels.shape[1]
        else:
            loss = F.cross_entropy(logits, labels)
        return dict(loss=loss, logits=logits, pooled_output=pooled, states=states)


def spread(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() > 1:
                p.copy_((0.6 if "embeddings" in name else 0.35) * noise)
            else:
                p.copy_((1.0 if name.endswith("LayerNorm.weight") else 0.0) + 0.1 * noise)
            if name.endswith("word_embeddings.weight"):
                p[0].zero_()


def check_bert(bert, c):
    """The same text through transformers' BERT."""
    import transformers
    other = transformers.BertModel(transformers.BertConfig(**{k: SIZES[k] for k in (
        "vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
        "max_position_embeddings", "type_vocab_size", "layer_norm_eps", "hidden_act")})).eval()
    state = {k: v for k, v in bert.state_dict().items() if not k.startswith(("img_embedding", "LayerNorm"))}
    missing, unexpected = other.load_state_dict(state, strict=False)
    assert not unexpected and all("position_ids" in m for m in missing), (missing, unexpected)
    ids = torch.tensor([[2, 9, 14, 3, 0], [2, 7, 8, 21, 3]])
    mask, types = (ids != 0).long(), torch.tensor([[0, 0, 1, 1, 0], [0, 0, 0, 1, 1]])
    with torch.no_grad():
        x, pooled, _ = bert(ids, mask, types)
        y = other(input_ids=ids, attention_mask=mask, token_type_ids=types)
    valid = mask.bool()
    assert torch.allclose(x[valid], y.last_hidden_state[valid], atol=1e-5)
    assert torch.allclose(pooled, y.pooler_output, atol=1e-5)


def write(name, model, fields, inputs, generate=None, train=True, folder=OUT):
    directory = folder / name
    directory.mkdir(parents=True, exist_ok=True)
    config = {k: v for k, v in Config(fields).fields.items()}
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    state = {k: v.contiguous() for k, v in model.state_dict().items() if k != "cls.predictions.decoder.weight"}
    save_file(state, directory / "model.safetensors")
    tensors = {f"in.{k}": v.contiguous() for k, v in inputs.items()}
    if generate:
        with torch.no_grad():
            ids = model.generate(**inputs, **generate)
        print(name, ids.tolist())
        tokens = dict(pad_token_id=PAD, bos_token_id=CLS, eos_token_ids=SEP, mask_token_id=MASK)
        tensors |= {f"in.{k}": torch.tensor([v]) for k, v in (generate | tokens).items()}
        tensors["out.generated_ids"] = ids
    else:
        out = model(**inputs)
        seen = inputs["attention_mask"]
        if seen.dim() == 3 and "masked_pos" in inputs:
            seen = torch.diagonal(seen, dim1=1, dim2=2)
        seen = seen.flatten(0, 1) if seen.dim() == 3 else seen
        seen = seen[..., None].float()
        for i, state in enumerate(out.pop("states")):
            tensors[f"out.hidden_states.{i}"] = (state * seen).detach()
        if "prediction_scores" in out:
            out["prediction_scores"] = out["prediction_scores"] * seen
        tensors |= {f"out.{k}": v.detach().reshape(v.shape or (1,)).clone() for k, v in out.items()}
        if train:
            optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
            losses = []
            for step in range(10):
                optimizer.zero_grad()
                loss = model(**inputs)["loss"]
                loss.backward()
                losses.append(loss.item())
                if step == 0:
                    for k, p in model.named_parameters():
                        grad = torch.zeros_like(p) if p.grad is None else p.grad
                        tensors["grad." + k] = torch.tensor([grad.norm(), (grad * fill("probe." + k, p.shape)).sum()])
                optimizer.step()
            tensors["losses"] = torch.tensor(losses)
            print(name, [round(x, 4) for x in losses])
    save_file(tensors, directory / "golden.safetensors")


def build(cls, seed, **fields):
    torch.manual_seed(seed)
    c = Config(fields)
    model = cls(c).eval()
    spread(model, seed)
    check_bert(model.bert, c)
    return model, fields


def normal(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def seq2seq_mask(caption, labels, regions, lengths):
    """Captions see themselves up to here, their labels and their regions; labels and regions see each other."""
    c, l, r = lengths
    total = c + l + r
    mask = torch.zeros(len(caption), total, total, dtype=torch.long)
    for row, (nc, nl, nr) in enumerate(zip(caption, labels, regions)):
        context = [*range(c, c + nl), *range(c + l, c + l + nr)]
        for i in range(nc):
            mask[row, i, : i + 1] = 1
            mask[row, i, context] = 1
        for i in context:
            mask[row, i, context] = 1
    return mask


def padded(rows, length):
    return torch.tensor([row + [PAD] * (length - len(row)) for row in rows])


def full(folder):
    """The base sizes of the released models, 50 regions of 2,054 numbers."""
    sizes = dict(vocab_size=30522, hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
                 max_position_embeddings=512, img_feature_dim=2054)
    ids = torch.randint(5, 30522, (2, 35), generator=torch.Generator().manual_seed(3))
    ids[:, 0] = CLS
    ids[1, 28:] = PAD
    types = (torch.arange(35) >= 20).long().expand(2, -1)
    regions = normal(2, 50, 2054, seed=4)
    seen = torch.ones(2, 50, dtype=torch.long)
    seen[1, 40:] = 0
    mask = torch.cat([(ids != PAD).long(), seen], 1)
    both = dict(input_ids=ids, attention_mask=mask, token_type_ids=types, img_feats=regions)
    labels = torch.full_like(ids, -1)
    labels[:, 3:6] = ids[:, 3:6]
    answers = torch.zeros(2, 3129)
    answers[0, 7] = answers[1, 3000] = 1.0
    two = {k: torch.stack([v, v.flip(0)], 1) for k, v in both.items()}
    vqa = dict(num_labels=3129, loss_type="bce", classifier="linear", cls_hidden_scale=3)
    nlvr2 = dict(num_labels=2, loss_type="xe", classifier="mlp", cls_hidden_scale=3, num_choice=2, use_img_layernorm=1,
                 img_layer_norm_eps=1e-12)
    for name, cls, fields, inputs in (
            ("pretraining", Pretraining, dict(num_contrast_classes=3, num_labels=2),
             both | dict(masked_lm_labels=labels, next_sentence_label=torch.tensor([0, 2]))),
            ("vqa", Classification, vqa, both | dict(labels=answers)),
            ("nlvr2", Classification, nlvr2, two | dict(labels=torch.tensor([1, 0])))):
        torch.manual_seed(16)
        model = cls(Config(sizes | fields)).eval()
        with torch.no_grad():
            for key, p in model.named_parameters():
                if p.dim() > 1:
                    p.normal_(0, 0.05)
                elif not key.endswith("LayerNorm.weight"):
                    p.normal_(0, 0.02)
            write(name, model, sizes | fields, inputs, train=False, folder=Path(folder))
        print(name, sum(p.numel() for p in model.parameters()))


def main():
    texts = [[CLS, 7, 8, 9, SEP, 20, 21, SEP], [CLS, 11, 12, SEP, 22, SEP]]
    ids = padded(texts, 8)
    types = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1, 0, 0]])
    regions = normal(2, 3, 10, seed=1)
    regions[1, 2] = 0
    mask = torch.cat([(ids != PAD).long(), torch.tensor([[1, 1, 1], [1, 1, 0]])], 1)
    both = dict(input_ids=ids, attention_mask=mask, token_type_ids=types, img_feats=regions)

    # one word of the caption and one tag are masked; the second row is a pair that does not belong together
    masked = ids.clone()
    labels = torch.full_like(ids, -1)
    for row, place in ((0, 2), (0, 5), (1, 1)):
        labels[row, place] = ids[row, place]
        masked[row, place] = MASK
    model, fields = build(Pretraining, 11, num_contrast_classes=3, num_labels=2)
    write("pretraining", model, fields,
          both | dict(input_ids=masked, masked_lm_labels=labels, next_sentence_label=torch.tensor([0, 2])))

    # captions of at most 6, tags behind them
    captions = padded([[CLS, 7, MASK, 9, SEP], [CLS, 11, 12, 13, MASK, SEP]], 6)
    tags = padded([[20, 21, SEP], [22, SEP]], 4)
    caption_types = torch.tensor([[0] * 6 + [1, 1, 1, 0], [0] * 6 + [1, 1, 0, 0]])
    attention = seq2seq_mask([5, 6], [3, 2], [3, 2], (6, 4, 3))
    masked_pos = torch.zeros(2, 10, dtype=torch.int)
    masked_pos[0, 2] = masked_pos[1, 4] = masked_pos[1, 2] = 1
    model, fields = build(Captioning, 12, label_smoothing=0.1, tie_weights=True, num_labels=2, loss_type="sfmx",
                          drop_worst_ratio=0.0, drop_worst_after=0, freeze_embedding=False)
    write("captioning", model, fields, dict(
        input_ids=torch.cat([captions, tags], 1), attention_mask=attention, token_type_ids=caption_types,
        img_feats=regions, masked_pos=masked_pos, masked_ids=torch.tensor([[8, 0], [12, 14]])))
    model, fields = build(Captioning, 12, label_smoothing=0.1, tie_weights=True, num_labels=2, loss_type="sfmx")
    with torch.no_grad():
        model.cls.predictions.bias[SEP] += 1.2
    for name, start in (("generation", 6), ("generation_far", 20)):
        write(name, model, fields, dict(
            input_ids=torch.cat([torch.full((2, 8), MASK), tags], 1),
            attention_mask=seq2seq_mask([8, 8], [3, 2], [3, 2], (8, 4, 3)),
            token_type_ids=torch.tensor([[0] * 8 + [1, 1, 1, 0], [0] * 8 + [1, 1, 0, 0]]), img_feats=regions),
            generate=dict(max_length=8, od_labels_start_posid=start))
    write("generation_untagged", model, fields, dict(
        input_ids=torch.full((2, 8), MASK), attention_mask=seq2seq_mask([8, 8], [0, 0], [3, 2], (8, 0, 3)),
        token_type_ids=torch.zeros(2, 8, dtype=torch.long), img_feats=regions),
        generate=dict(max_length=8, od_labels_start_posid=8))

    answers = torch.zeros(2, 7)
    answers[0, 3], answers[0, 5], answers[1, 1] = 1.0, 0.3, 0.6
    model, fields = build(Classification, 13, num_labels=7, loss_type="bce", classifier="mlp", cls_hidden_scale=3)
    write("vqa", model, fields, both | dict(labels=answers))

    model, fields = build(Classification, 14, num_labels=2, loss_type="sfmx", classifier="linear", cls_hidden_scale=2,
                          use_img_layernorm=1, img_layer_norm_eps=1e-7)
    write("retrieval", model, fields, both | dict(labels=torch.tensor([1, 0])))

    two = {k: torch.stack([v, v.flip(0)], 1) for k, v in both.items()}
    two["img_feats"] = normal(2, 2, 3, 10, seed=2)
    model, fields = build(Classification, 15, num_labels=2, loss_type="xe", classifier="mlp", cls_hidden_scale=3,
                          num_choice=2, use_img_layernorm=1, img_layer_norm_eps=1e-12)
    write("nlvr2", model, fields, two | dict(labels=torch.tensor([1, 0])))
    statements(model, OUT / "nlvr2" / "statements.safetensors")


def statements(model, path):
    """The loss of two statements, each beside both of its pictures, of which each has tags and regions of its own."""
    texts = [[CLS, 7, 8, 9, SEP], [CLS, 11, 12, SEP]]
    tags = [[[20, 21, SEP], [23, SEP]], [[22, SEP], [20, 22, SEP]]]
    rows = [[text + tag for tag in both] for text, both in zip(texts, tags)]
    types = [[[0] * len(text) + [1] * len(tag) for tag in both] for text, both in zip(texts, tags)]
    ids, types = (torch.stack([padded(both, 8) for both in x]) for x in (rows, types))
    regions = normal(2, 2, 3, 10, seed=3)
    seen = torch.tensor([[[1, 1, 1], [1, 1, 0]], [[1, 1, 1], [1, 0, 0]]])
    regions = regions * seen[..., None]
    mask = torch.cat([(ids != PAD).long(), seen], 2)
    labels = torch.tensor([1, 0])
    with torch.no_grad():
        out = model(input_ids=ids, attention_mask=mask, token_type_ids=types, img_feats=regions, labels=labels)
    print("statements", out["loss"].item())
    save_file({"in.img_feats": regions, "out.loss": out["loss"].reshape(1)}, path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1:2] == ["full"]:
        full(sys.argv[2])
    else:
        main()
