"""Writes testdata/models/nic: tiny random captioners of a CNN and an RNN, with what plain PyTorch makes of inputs.

    python -m venv VENV && VENV/bin/pip install torch torchvision safetensors
    OMP_NUM_THREADS=1 VENV/bin/python reference/models_nic.py
    OMP_NUM_THREADS=1 VENV/bin/python reference/models_nic.py full DIRECTORY   (real sizes, outside the repository)

Made with torch 2.15.0 and torchvision 0.29.2 on a CPU. No package holds these models. `ShowAndTell` follows Vinyals et al.,
2015, with the parameter names of yunjey/pytorch-tutorial (tutorials/03-advanced/image_captioning), `ShowAttendAndTell`
follows Xu et al., 2015, with those of sgrvinod/a-PyTorch-Tutorial-to-Image-Captioning; both are written anew here, without
dropout. The files of a case are those of reference/models_clip.py: weights are a function of their names (`fill`).
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import torchvision
from safetensors.torch import save_file
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torchvision.models.resnet import BasicBlock, Bottleneck

from known_weights import fill, filled, train
from models_torchvision import small_resnet, small_vgg

OUT = Path(__file__).resolve().parent.parent / "testdata" / "models" / "nic"


class ShowAndTellEncoder(nn.Module):
    def __init__(self, cnn, features, embed_size):
        super().__init__()
        if isinstance(cnn, torchvision.models.VGG):
            self.vgg = nn.Module()
            self.vgg.features = cnn.features
        else:
            self.resnet = nn.Sequential(*list(cnn.children())[:-1])
        self.linear = nn.Linear(features, embed_size)
        self.bn = nn.BatchNorm1d(embed_size, momentum=0.01)

    def forward(self, images):
        x = self.vgg.features(images).mean((2, 3)) if hasattr(self, "vgg") else self.resnet(images).flatten(1)
        return self.bn(self.linear(x))


class ShowAndTellDecoder(nn.Module):
    def __init__(self, kind, embed_size, hidden_size, vocab_size, num_layers):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, embed_size)
        rnn = {"lstm": nn.LSTM, "gru": nn.GRU}[kind](embed_size, hidden_size, num_layers, batch_first=True)
        setattr(self, kind, rnn)
        self.kind = kind
        self.linear = nn.Linear(hidden_size, vocab_size)

    def forward(self, features, captions, lengths):
        """Logits of every token of the captions: the picture predicts the first."""
        x = torch.cat((features.unsqueeze(1), self.embed(captions)), 1)
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        hiddens, _ = pad_packed_sequence(getattr(self, self.kind)(packed)[0], batch_first=True)
        seen = torch.arange(hiddens.shape[1])[None] < lengths[:, None]
        return hiddens, self.linear(hiddens) * seen[..., None]


class ShowAndTell(nn.Module):
    def __init__(self, cnn, features, kind, embed_size, hidden_size, vocab_size, num_layers=1):
        super().__init__()
        self.encoder = ShowAndTellEncoder(cnn, features, embed_size)
        self.decoder = ShowAndTellDecoder(kind, embed_size, hidden_size, vocab_size, num_layers)

    def outputs(self, pixels, captions, lengths):
        features = self.encoder(pixels)
        hiddens, logits = self.decoder(features, captions, lengths)
        return {"features": features, "hiddens": hiddens, "logits": logits, "loss": self.loss(pixels, captions, lengths)}

    def loss(self, pixels, captions, lengths):
        _, logits = self.decoder(self.encoder(pixels), captions, lengths)
        packed = [pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False).data for x in (logits, captions)]
        return nn.functional.cross_entropy(*packed)

    def begin(self, pixels):
        _, state = getattr(self.decoder, self.decoder.kind)(self.encoder(pixels).unsqueeze(1))
        return state

    def step(self, state, token):
        x, state = getattr(self.decoder, self.decoder.kind)(self.decoder.embed(token)[:, None], state)
        return self.decoder.linear(x[:, 0]), state


class Attention(nn.Module):
    def __init__(self, encoder_dim, decoder_dim, attention_dim):
        super().__init__()
        self.encoder_att = nn.Linear(encoder_dim, attention_dim)
        self.decoder_att = nn.Linear(decoder_dim, attention_dim)
        self.full_att = nn.Linear(attention_dim, 1)

    def forward(self, places, hidden):
        score = self.full_att(torch.relu(self.encoder_att(places) + self.decoder_att(hidden).unsqueeze(1))).squeeze(2)
        alpha = torch.softmax(score, dim=1)
        return (places * alpha.unsqueeze(2)).sum(dim=1), alpha


class ShowAttendAndTellDecoder(nn.Module):
    def __init__(self, kind, attention_dim, embed_dim, decoder_dim, vocab_size, encoder_dim):
        super().__init__()
        self.attention = Attention(encoder_dim, decoder_dim, attention_dim)
        self.embedding = nn.Embedding(vocab_size, embed_dim)
        cell = {"lstm": nn.LSTMCell, "gru": nn.GRUCell}[kind]
        self.decode_step = cell(embed_dim + encoder_dim, decoder_dim)
        self.init_h = nn.Linear(encoder_dim, decoder_dim)
        if kind == "lstm":
            self.init_c = nn.Linear(encoder_dim, decoder_dim)
        self.f_beta = nn.Linear(decoder_dim, encoder_dim)
        self.fc = nn.Linear(decoder_dim, vocab_size)
        self.kind = kind

    def begin(self, places):
        mean = places.mean(dim=1)
        return (self.init_h(mean), self.init_c(mean)) if self.kind == "lstm" else (self.init_h(mean),)

    def step(self, places, state, token):
        context, alpha = self.attention(places, state[0])
        gated = torch.sigmoid(self.f_beta(state[0])) * context
        new = self.decode_step(torch.cat([self.embedding(token), gated], dim=1), state if self.kind == "lstm" else state[0])
        return (new if self.kind == "lstm" else (new,)), alpha


class ShowAttendAndTell(nn.Module):
    def __init__(self, cnn, features, kind, attention_dim, embed_dim, decoder_dim, vocab_size, map_size=14):
        super().__init__()
        self.encoder = nn.Module()
        if isinstance(cnn, torchvision.models.VGG):
            # the map before the last pooling
            self.encoder.vgg = nn.Module()
            self.encoder.vgg.features = cnn.features[:-1]
        else:
            self.encoder.resnet = nn.Sequential(*list(cnn.children())[:-2])
        self.decoder = ShowAttendAndTellDecoder(kind, attention_dim, embed_dim, decoder_dim, vocab_size, features)
        self.map_size = map_size

    def encode(self, pixels):
        cnn = self.encoder.vgg.features if hasattr(self.encoder, "vgg") else self.encoder.resnet
        return nn.functional.adaptive_avg_pool2d(cnn(pixels), self.map_size).permute(0, 2, 3, 1)

    def outputs(self, pixels, captions, lengths):
        map = self.encode(pixels)
        places = map.flatten(1, 2)
        state, hiddens, alphas = self.decoder.begin(places), [], []
        for t in range(captions.shape[1] - 1):
            seen = (t < lengths - 1).float()[:, None]
            state, alpha = self.decoder.step(places, state, captions[:, t])
            hiddens.append(state[0] * seen)
            alphas.append(alpha * seen)
        hiddens, alphas = torch.stack(hiddens, 1), torch.stack(alphas, 1)
        seen = torch.arange(captions.shape[1] - 1)[None] < (lengths - 1)[:, None]
        logits = self.decoder.fc(hiddens) * seen[..., None]
        loss = nn.functional.cross_entropy(logits[seen], captions[:, 1:][seen])
        loss = loss + ((1.0 - alphas.sum(dim=1)) ** 2).mean()
        return {"features": map, "hiddens": hiddens, "alphas": alphas, "logits": logits, "loss": loss}

    def loss(self, pixels, captions, lengths):
        return self.outputs(pixels, captions, lengths)["loss"]

    def begin(self, pixels):
        places = self.encode(pixels).flatten(1, 2)
        return places, self.decoder.begin(places)

    def step(self, state, token):
        places, state = state
        state, _ = self.decoder.step(places, state, token)
        return self.decoder.fc(state[0]), (places, state)


def greedy(model, pixels, bos, eos, pad, tokens):
    """All pictures at once; what ended is padded."""
    state, token = model.begin(pixels), torch.full((len(pixels),), bos)
    rows, done = [[bos] for _ in pixels], [False] * len(pixels)
    for _ in range(tokens):
        logits, state = model.step(state, token)
        token = logits.argmax(1)
        for i, id in enumerate(token.tolist()):
            if not done[i]:
                rows[i].append(id)
                done[i] = id == eos
        if all(done):
            break
    longest = max(map(len, rows))
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


def beam(model, pixels, bos, eos, pad, tokens, width, penalty):
    """One picture after the other and one hypothesis after the other, each decoded from its beginning: slow and plain.

    A step keeps the best `width` open hypotheses; one that ends counts where it is among the best `width` continuations;
    the search ends when `width` have ended and no open one is better, by its mean log-probability, than the worst of them.
    """
    rows = []
    for picture in pixels:
        beams, ended = [([bos], 0.0)], []
        for step in range(1, tokens + 1):
            candidates = []
            for ids, score in beams:
                state = model.begin(picture[None])
                for id in ids:
                    logits, state = model.step(state, torch.tensor([id]))
                log_probabilities = torch.log_softmax(logits[0], 0).tolist()
                candidates += [(score + x, ids + [id]) for id, x in enumerate(log_probabilities)]
            candidates.sort(key=lambda c: -c[0])
            beams = []
            for rank, (score, ids) in enumerate(candidates):
                if len(beams) == width:
                    break
                if ids[-1] == eos or step == tokens:
                    if rank < width:
                        ended.append((score / step**penalty, ids))
                else:
                    beams.append((ids, score))
            ended = sorted(ended, key=lambda e: -e[0])[:width]
            if not beams or (len(ended) == width and ended[-1][0] >= beams[0][1] / step**penalty):
                break
        rows.append(max(ended, key=lambda e: e[0])[1])
    longest = max(map(len, rows))
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])


def case(name, model, config, pixels, captions, lengths, special, trained=True):
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if config:
        (folder / "config.json").write_text(json.dumps({"model_type": "nic"} | config, indent=1) + "\n")
    # away from uniform words
    model = filled(model, [("decoder.", 4)])
    shapes = {k: list(v.shape) for k, v in model.state_dict().items() if v.is_floating_point()}
    (folder / "weights.json").write_text(json.dumps(shapes, indent=0) + "\n")
    bos, eos, pad = special
    with torch.no_grad():
        outputs = model.outputs(pixels, captions, lengths)
        outputs["loss"] = outputs["loss"].reshape(1)
        ids = greedy(model, pixels, bos, eos, pad, 9)
        beams = {f"{w}_{p}": beam(model, pixels, bos, eos, pad, 9, w, p) for w, p in ((3, 1.0), (2, 0.0))}
    golden = {"shape.pixel_values": torch.tensor(pixels.shape), "in.input_ids": captions, "in.caption_lengths": lengths}
    golden |= {f"out.{k}": v for k, v in outputs.items()} | {"ids.greedy": ids}
    golden |= {f"ids.beam_{k}": v for k, v in beams.items()}
    if trained:
        model.train()
        train(model, lambda: model.loss(pixels, captions, lengths), golden)
    golden = {k: v.detach().contiguous().clone() for k, v in golden.items()}
    save_file(golden, folder / "golden.safetensors", metadata={"golden": json.dumps({"class": type(model).__name__})})
    print(name, f"{sum(f.stat().st_size for f in folder.iterdir()) / 1024:.0f} KiB", ids.tolist(),
          {k: v.tolist() for k, v in beams.items()}, [round(x, 3) for x in golden.get("losses", torch.zeros(0)).tolist()])


def small():
    pixels = 4 * fill("pixel_values", (4, 3, 64, 64))
    # <pad> 0, <start> 1, <end> 2
    captions = torch.tensor([[1, 5, 9, 14, 6, 2], [1, 8, 11, 2, 0, 0], [1, 4, 4, 7, 2, 0], [1, 10, 3, 12, 13, 2]])
    lengths = torch.tensor([6, 4, 5, 6])
    bottlenecks = small_resnet(Bottleneck, [1, 1, 1, 1], 4, 5)
    case("show_and_tell", ShowAndTell(bottlenecks, 128, "lstm", 11, 12, 20, 2), None, pixels, captions, lengths, (1, 2, 0))
    encoder = {"resnet": dict(layers=[1, 1, 1, 1], bottleneck=False, width=4, inner_width=4)}
    sizes = dict(vocab_size=20, embed_size=12, hidden_size=10, bos_token_id=1, eos_token_id=2)
    case("show_and_tell_gru", ShowAndTell(small_resnet(BasicBlock, [1, 1, 1, 1], 4, 5), 32, "gru", 12, 10, 20),
         sizes | dict(encoder=encoder, rnn_type="gru", image_size=64), pixels, captions, lengths, (1, 2, 0))
    # <unk> V - 3, <start> V - 2, <end> V - 1
    captions = torch.tensor([[18, 5, 9, 14, 6, 19], [18, 8, 11, 19, 0, 0], [18, 4, 4, 7, 19, 0], [18, 10, 3, 12, 13, 19]])
    case("show_attend_and_tell", ShowAttendAndTell(small_resnet(BasicBlock, [1, 1, 1, 1], 4, 5), 32, "lstm", 8, 14, 15, 20), None, pixels, captions,
         lengths, (18, 19, 0))
    stages = [[4], [4], [6], [6], [8, 8]]
    encoder = {"vgg": dict(stages=stages, batch_norm=True, last_pooling=False)}
    attention = dict(attention_dim=8, map_size=5, alpha_c=1.0)
    case("show_attend_and_tell_gru", ShowAttendAndTell(small_vgg(stages, 4, 5, True), 8, "gru", 8, 14, 15, 20, 5),
         sizes | dict(encoder=encoder, rnn_type="gru", image_size=64, attention=attention, embed_size=14, hidden_size=15, bos_token_id=18,
                     eos_token_id=19),
         pixels, captions, lengths, (18, 19, 0))


def full(directory):
    """The tutorials' sizes with random weights."""
    torch.manual_seed(0)
    words = 9490
    for name, model, side in (
        ("show_and_tell", ShowAndTell(torchvision.models.resnet152(), 2048, "lstm", 256, 512, words), 224),
        ("show_attend_and_tell", ShowAttendAndTell(torchvision.models.resnet101(), 2048, "lstm", 512, 512, 512, words), 256),
    ):
        model.eval()
        bos, eos = (1, 2) if name == "show_and_tell" else (words - 2, words - 1)
        folder = Path(directory) / name
        folder.mkdir(parents=True, exist_ok=True)
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.weight.uniform_(0.2, 0.6)
                    module.running_var.uniform_(0.5, 2)
            pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))
            captions = torch.tensor([[bos, 5, 9, 14, 6, eos], [bos, 8, 11, eos, 0, 0]])
            lengths = torch.tensor([6, 4])
            outputs = model.outputs(pixels, captions, lengths) | {"generated_ids": greedy(model, pixels, bos, eos, 0, 12)}
        # as the first repository writes them, in two files
        for half in ("encoder", "decoder"):
            torch.save(getattr(model, half).state_dict(), folder / f"{half}-5-3000.ckpt")
        golden = {"in.pixel_values": pixels, "in.input_ids": captions, "in.caption_lengths": lengths,
                  "in.max_new_tokens": torch.tensor(12)}
        golden |= {f"out.{k}": v.contiguous() for k, v in outputs.items()}
        save_file(golden, folder / "golden.safetensors")
        print(name, sum(p.numel() for p in model.parameters()), outputs["generated_ids"].tolist())


if __name__ == "__main__":
    if sys.argv[1:2] == ["full"]:
        full(sys.argv[2])
    else:
        small()
