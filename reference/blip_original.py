"""Writes testdata/models/blip/original: tiny random BLIP models as the authors' own code saves them.

    python -m venv VENV && VENV/bin/pip install torch safetensors
    VENV/bin/python reference/blip_original.py

An implementation of its own after the paper (Li et al., "BLIP", 2022) and the names in the released checkpoints, with
nothing of transformers in it. Before anything is written it is held against reference/models_blip.py: with the weights
of that script's models it must give their outputs.

Files have all that the released ones have: buffers, momentum copies, queues. captioning.pth is `{"model": state_dict}`
as they are, the others are kept as safetensors of the same tensors. NAME.golden.safetensors has arguments and results under the names of transformers' classes. There is no config: the
sizes are to be told by the tensors, with 64 channels per head or one head for narrower models.
"""

import math
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

DATA = Path(__file__).resolve().parent.parent / "testdata" / "models" / "blip"
OUT = DATA / "original"


def attention(q, k, v, heads, hidden=None):
    """`hidden` is added to the scores, `[B, 1, Tq or 1, Tk]`."""
    def split(x):
        return x.unflatten(-1, (heads, -1)).transpose(1, 2)
    q, k, v = split(q), split(k), split(v)
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if hidden is not None:
        scores = scores + hidden
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def submodules(**modules):
    """A module that is nothing but the names of its parts."""
    module = nn.Module()
    for name, part in modules.items():
        module.add_module(name, part)
    return module


class VisualEncoder(nn.Module):
    def __init__(self, width, hidden, depth, heads, patch, side, eps=1e-6):
        super().__init__()
        self.heads = heads
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + side * side, width))
        self.patch_embed = submodules(proj=nn.Conv2d(3, width, patch, patch))
        self.blocks = nn.ModuleList(submodules(
            norm1=nn.LayerNorm(width, eps), attn=submodules(qkv=nn.Linear(width, 3 * width), proj=nn.Linear(width, width)),
            norm2=nn.LayerNorm(width, eps), mlp=submodules(fc1=nn.Linear(width, hidden), fc2=nn.Linear(hidden, width)),
        ) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps)

    def forward(self, image):
        x = self.patch_embed.proj(image).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        for b in self.blocks:
            x = x + b.attn.proj(attention(*b.attn.qkv(b.norm1(x)).chunk(3, -1), self.heads))
            x = x + b.mlp.fc2(F.gelu(b.mlp.fc1(b.norm2(x))))
        return self.norm(x)


def attend(width, memory, eps):
    return submodules(**{
        "self": submodules(query=nn.Linear(width, width), key=nn.Linear(memory, width), value=nn.Linear(memory, width)),
        "output": submodules(dense=nn.Linear(width, width), LayerNorm=nn.LayerNorm(width, eps)),
    })


class Bert(nn.Module):
    def __init__(self, vocab, positions, width, hidden, depth, heads, memory, eps=1e-12):
        super().__init__()
        self.heads = heads
        self.embeddings = submodules(
            word_embeddings=nn.Embedding(vocab, width, padding_idx=0), position_embeddings=nn.Embedding(positions, width),
            LayerNorm=nn.LayerNorm(width, eps))
        self.embeddings.register_buffer("position_ids", torch.arange(positions)[None])
        self.encoder = submodules(layer=nn.ModuleList(submodules(
            attention=attend(width, width, eps), crossattention=attend(width, memory, eps),
            intermediate=submodules(dense=nn.Linear(width, hidden)),
            output=submodules(dense=nn.Linear(hidden, width), LayerNorm=nn.LayerNorm(width, eps)),
        ) for _ in range(depth)))

    def attended(self, part, x, memory, hidden):
        own = part.self
        y = attention(own.query(x), own.key(memory), own.value(memory), self.heads, hidden)
        return part.output.LayerNorm(part.output.dense(y) + x)

    def forward(self, ids, mask=None, memory=None, memory_mask=None, causal=False):
        e = self.embeddings
        x = e.LayerNorm(e.word_embeddings(ids) + e.position_embeddings(e.position_ids[:, :ids.shape[1]]))
        seen = torch.ones(ids.shape) if mask is None else mask.float()
        seen = seen[:, None, None]
        if causal:
            seen = seen * torch.ones(ids.shape[1], ids.shape[1]).tril()
        memory_hidden = None if memory_mask is None else (1 - memory_mask.float())[:, None, None] * torch.finfo().min
        for layer in self.encoder.layer:
            x = self.attended(layer.attention, x, x, (1 - seen) * -10000.0)
            if memory is not None:
                x = self.attended(layer.crossattention, x, memory, memory_hidden)
            y = layer.output.dense(F.gelu(layer.intermediate.dense(x)))
            x = layer.output.LayerNorm(y + x)
        return x


class Decoder(nn.Module):
    def __init__(self, *sizes, eps=1e-12):
        super().__init__()
        self.bert = Bert(*sizes, eps=eps)
        vocab, _, width = sizes[:3]
        predictions = submodules(
            transform=submodules(dense=nn.Linear(width, width), LayerNorm=nn.LayerNorm(width, eps)),
            decoder=nn.Linear(width, vocab))
        predictions.decoder.weight = self.bert.embeddings.word_embeddings.weight
        predictions.bias = predictions.decoder.bias
        self.cls = submodules(predictions=predictions)

    def forward(self, *args, **kwargs):
        p = self.cls.predictions
        return p.decoder(p.transform.LayerNorm(F.gelu(p.transform.dense(self.bert(*args, **kwargs, causal=True)))))

    def losses(self, logits, labels, smoothing=0.1):
        losses = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), reduction="none",
                                 label_smoothing=smoothing)
        return losses.view(len(labels), -1)

    def generate(self, ids, memory, tokens, end, pad=0):
        done = torch.zeros(len(ids), dtype=torch.bool)
        for _ in range(tokens):
            new = self(ids, memory=memory)[:, -1].argmax(-1).masked_fill(done, pad)
            ids = torch.cat([ids, new[:, None]], 1)
            done |= new == end
            if done.all():
                break
        return ids


class Blip(nn.Module):
    """`parts`: which of encoder, decoder and heads a released file has."""

    def __init__(self, parts, vision, text, embed=6, queue=4, text_eps=1e-12, vision_eps=1e-6):
        super().__init__()
        self.visual_encoder = VisualEncoder(*vision, eps=vision_eps)
        width, text_width = vision[0], text[2]
        answers = "encoder" in parts and "decoder" in parts and "heads" not in parts
        if "encoder" in parts:
            self.text_encoder = Bert(*text, width, eps=text_eps)
        if "decoder" in parts:
            self.text_decoder = Decoder(*text, text_width if answers else width, eps=text_eps)
        if "heads" in parts:
            self.vision_proj, self.text_proj = nn.Linear(width, embed), nn.Linear(text_width, embed)
            self.itm_head = nn.Linear(text_width, 2)
        if "momentum" in parts:
            self.visual_encoder_m = VisualEncoder(*vision)
            self.text_encoder_m = Bert(*text, width)
            self.vision_proj_m, self.text_proj_m = nn.Linear(width, embed), nn.Linear(text_width, embed)
            self.temp = nn.Parameter(torch.tensor(0.05))
            self.register_buffer("image_queue", torch.zeros(embed, queue))
            self.register_buffer("text_queue", torch.zeros(embed, queue))
            self.register_buffer("idx_queue", torch.full((1, queue), -100))
            self.register_buffer("ptr_queue", torch.zeros(1, dtype=torch.long))

    def vectors(self, states, ids, mask):
        image = F.normalize(self.vision_proj(states[:, 0]), dim=-1)
        text = F.normalize(self.text_proj(self.text_encoder(ids, mask)[:, 0]), dim=-1)
        return image, text


def seeded(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if name != "temp":
                p.copy_(0.3 * noise) if p.dim() > 1 else p.add_(0.1 * noise)
    return model.eval()


def like_transformers(name, parts, eps):
    """One of models_blip.py's models by this implementation."""
    published = load_file(DATA / name / "model.safetensors")
    names = [("vision_model.embeddings.class_embedding", "visual_encoder.cls_token"),
             ("vision_model.embeddings.position_embedding", "visual_encoder.pos_embed"),
             ("vision_model.embeddings.patch_embedding", "visual_encoder.patch_embed.proj"),
             ("vision_model.encoder.layers", "visual_encoder.blocks"), ("vision_model.post_layernorm", "visual_encoder.norm"),
             ("layer_norm", "norm"), ("self_attn.projection", "attn.proj"), ("self_attn", "attn")]
    state = {}
    for key, value in published.items():
        for old, new in names:
            key = key.replace(old, new)
        state[key] = value
    heads = 2 if name == "question_answering" else 3
    width = 8 if name == "question_answering" else 12
    model = Blip(parts, (8, 12, 2, 2, 4, 2), (20, 16, width, 16, 2, heads), embed=10, text_eps=1e-12, vision_eps=eps)
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert not unexpected, unexpected
    tied = ("position_ids", "predictions.decoder.weight", "predictions.decoder.bias")
    assert all(m.endswith(tied) for m in missing), missing
    return model.eval()


def golden_of(path):
    with safe_open(path, "pt") as file:
        return {k: file.get_tensor(k) for k in file.keys()}


def same(what, found, expected):
    error = (found - expected).abs().max() / expected.abs().max()
    assert error < 1e-5, (what, error)
    print(f"{what}: as transformers, to {error:.1e}")


@torch.no_grad()
def check():
    model = like_transformers("captioning", ["decoder"], 1e-5)
    g = golden_of(DATA / "captioning" / "forward.golden.safetensors")
    states = model.visual_encoder(g["in.pixel_values"])
    same("captioning states", states, g["out.last_hidden_state"])
    logits = model.text_decoder(g["in.input_ids"], g["in.attention_mask"], states)
    same("captioning logits", logits, g["out.logits"])
    losses = model.text_decoder.losses(logits, g["in.labels"])
    same("captioning loss", losses.sum() / (g["in.labels"][:, 1:] >= 0).sum(), g["out.loss"])
    g = golden_of(DATA / "captioning" / "prompt.golden.safetensors")
    ids = model.text_decoder.generate(g["in.input_ids"][:, :-1], model.visual_encoder(g["in.pixel_values"]), 5, 12)
    assert ids.equal(g["out.generated_ids"])
    model = like_transformers("question_answering", ["encoder", "decoder"], 1e-5)
    g = golden_of(DATA / "question_answering" / "forward.golden.safetensors")
    states = model.visual_encoder(g["in.pixel_values"])
    question = model.text_encoder(g["in.input_ids"], g["in.attention_mask"], states)
    losses = model.text_decoder.losses(model.text_decoder(g["in.labels"], None, question), g["in.labels"])
    # transformers drops the questions' mask on its way to the answer decoder
    same("question answering loss", losses.mean(), g["out.loss"])
    model = like_transformers("retrieval", ["encoder", "heads"], 1e-5)
    g = golden_of(DATA / "retrieval" / "itm.golden.safetensors")
    states = model.visual_encoder(g["in.pixel_values"])
    text = model.text_encoder(g["in.input_ids"], g["in.attention_mask"], states)
    same("retrieval match", model.itm_head(text[:, 0]), g["out.itm_score"])
    image, text = model.vectors(states, g["in.input_ids"], g["in.attention_mask"])
    same("retrieval cosine", image @ text.T, golden_of(DATA / "retrieval" / "itc.golden.safetensors")["out.itm_score"])


def write(name, model, inputs, outputs):
    OUT.mkdir(exist_ok=True)
    if name == "captioning":
        torch.save({"model": model.state_dict()}, OUT / f"{name}.pth")
    elif name in ("question_answering", "retrieval"):
        # a third of the size of a .pth, where every tensor is a file of its own
        save_file({k: v.clone() for k, v in model.state_dict().items()}, OUT / f"{name}.safetensors")
    tensors = {f"in.{k}": torch.as_tensor(v).contiguous() for k, v in inputs.items()}
    tensors |= {f"out.{k}": v.contiguous() for k, v in outputs.items()}
    save_file(tensors, OUT / f"{name}.golden.safetensors")


@torch.no_grad()
def main():
    check()
    vision, text = (8, 12, 1, 1, 4, 2), (20, 16, 12, 16, 1, 1)
    pixels = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(21))
    ids = torch.tensor([[1, 5, 9, 14, 6, 3], [1, 8, 11, 3, 0, 0]])
    mask = (ids != 0).long()

    model = seeded(Blip(["decoder"], vision, text), 31)
    states = model.visual_encoder(pixels)
    ids[:, 0] = 18
    labels = ids.masked_fill(mask == 0, -100)
    logits = model.text_decoder(ids, mask, states)
    loss = model.text_decoder.losses(logits, labels).sum() / (labels[:, 1:] >= 0).sum()
    write("captioning", model, dict(pixel_values=pixels, input_ids=ids, attention_mask=mask, labels=labels),
          dict(last_hidden_state=states, logits=logits, loss=loss))
    write("captioning_generate", model, dict(pixel_values=pixels, max_new_tokens=6),
          dict(generated_ids=model.text_decoder.generate(torch.full((2, 1), 18), states, 6, 102)))

    # the answer decoder's memory is as wide as the text, whatever the width of the pictures
    model = seeded(Blip(["encoder", "decoder"], vision, text), 32)
    states = model.visual_encoder(pixels)
    ids[:, 0] = 19
    question = model.text_encoder(ids, mask, states)
    answers = torch.tensor([[18, 5, 6, 3], [18, 13, 3, 0]])
    labels = answers.masked_fill(answers == 0, -100)
    logits = model.text_decoder(answers, (answers != 0).long(), question, mask)
    loss = model.text_decoder.losses(logits, labels).sum() / (labels[:, 1:] >= 0).sum()
    write("question_answering", model,
          dict(pixel_values=pixels, input_ids=ids, attention_mask=mask, decoder_input_ids=answers,
               decoder_attention_mask=(answers != 0).long(), labels=labels),
          dict(question_embeds=question, logits=logits, loss=loss))
    # the authors' own loss: a sum over each answer's tokens, weighted, over the number of pictures
    weights = torch.tensor([0.75, 0.5])
    weighted = (weights * model.text_decoder.losses(logits, labels).sum(1)).sum() / 2
    write("question_answering_weighted", model, dict(weights=weights), dict(loss=weighted))

    model = seeded(Blip(["encoder", "heads", "momentum"], vision, text), 33)
    states = model.visual_encoder(pixels)
    text_states = model.text_encoder(ids, mask, states)
    pair = dict(pixel_values=pixels, input_ids=ids, attention_mask=mask)
    write("retrieval", model, pair, dict(itm_score=model.itm_head(text_states[:, 0]), question_embeds=text_states))
    image, text = model.vectors(states, ids, mask)
    write("retrieval_itc", model, pair | dict(use_itm_head=False), dict(itm_score=image @ text.T))


main()
