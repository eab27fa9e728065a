"""Weights that are a function of their names, so that golden files need not hold them; the tests compute them too
(crates/models/tests/common). Used by the other scripts here.
"""

import numpy as np
import torch


def fill(name, shape):
    """Numbers from -0.25 to 0.25 in steps of 1/512, exact in half precision, by name and place."""
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


def around(name, shape):
    """1 for what multiplies, 0 for the rest."""
    multiplies = name.endswith("weight") and len(shape) == 1
    return 1.0 if multiplies or name.endswith(("running_var", "gamma")) else 0.0


def filled(model, larger=()):
    """The model with known weights; `larger` has beginnings of names, each with a factor."""
    with torch.no_grad():
        for name, p in model.state_dict().items():
            if p.is_floating_point():
                factor = next((factor for begin, factor in larger if name.startswith(begin)), 1)
                p.copy_(factor * (fill(name, p.shape) + around(name, p.shape)))
    return model.eval()


def train(model, loss, golden):
    """Gradients of the loss, what the first step does to running statistics, and the losses of ten steps of AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.1)
    losses = []
    for step in range(10):
        optimizer.zero_grad()
        value = loss()
        value.backward()
        losses.append(value.item())
        if step == 0:
            for name, p in model.named_parameters():
                grad = torch.zeros_like(p) if p.grad is None else p.grad
                pattern = fill("probe." + name, p.shape)
                golden["grad." + name] = torch.tensor([grad.norm(), (grad * pattern).sum()])
            for name, b in model.named_buffers():
                if "running" in name:
                    golden["stat." + name] = (b * fill("probe." + name, b.shape)).sum().reshape(1)
        optimizer.step()
    golden["losses"] = torch.tensor(losses)
