"""PyTorch, eager: torch_peer.py encode|train|gemm PRECISION BATCH THREADS WARMUP REPEAT."""

import sys

import torch
from measure import measure, report
from networks import Contrastive, Vision

work, precision = sys.argv[1:3]
batch, threads, warmup, repeat = map(int, sys.argv[3:7])
torch.set_num_threads(threads)
torch.manual_seed(0)
dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[precision]

if work == "encode":
    model = Vision(768).eval().to(dtype)
    pixels = torch.randn(batch, 3, 224, 224).to(dtype)

    def once():
        with torch.inference_mode():
            model(pixels)
elif work == "train":
    model = Contrastive()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    pixels, ids = torch.randn(batch, 3, 224, 224), torch.randint(0, 49000, (batch, 77))

    def once():
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            loss = model(pixels, ids)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
else:
    m, k, n = 3136, 768, 3072
    a, weight = torch.randn(m, k).to(dtype), torch.randn(n, k).to(dtype)

    def once():
        with torch.inference_mode():
            torch.nn.functional.linear(a, weight)

report(measure(once, warmup, repeat), torch.__version__)
