"""Golden blocks of the GGUF formats: random bytes and what the gguf package reads from them.

    pip install gguf==0.19.0 numpy
    python reference/gguf_blocks.py testdata/kernels

Writes for each format NAME.blocks (the bytes) and NAME.f32 (the weights, little-endian f32).
"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf import GGML_QUANT_SIZES, quants

# Where the f16 scales of a block stand.
HALVES = {
    "Q4_0": [0],
    "Q5_0": [0],
    "Q8_0": [0],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}


def random_blocks(rng, name):
    weights, size = GGML_QUANT_SIZES[T[name]]
    count = max(2, 64 // weights)
    if name == "F32":
        return rng.standard_normal(count).astype("<f4").view(np.uint8)
    if name not in HALVES:
        # Every kind of number but NaN, whose payload is not defined to survive.
        bits = rng.integers(0, 1 << 16, count).astype("<u2")
        top = 0x7C00 if name == "F16" else 0x7F80
        bits[(bits & top) == top] &= ~np.uint16(top)
        return bits.view(np.uint8)
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for at in HALVES[name]:
        scales = rng.uniform(-0.1, 0.1, count).astype("<f2")
        blocks[:, at : at + 2] = scales.view(np.uint8).reshape(count, 2)
    return blocks.reshape(-1)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(20)
    for name in ["F32", "F16", "BF16", *HALVES]:
        blocks = random_blocks(rng, name)
        if name == "F32":
            weights = blocks.view("<f4")
        else:
            weights = quants.dequantize(blocks, T[name])
        (folder / f"{name}.blocks").write_bytes(blocks.tobytes())
        (folder / f"{name}.f32").write_bytes(weights.astype("<f4").tobytes())


if __name__ == "__main__":
    main()
