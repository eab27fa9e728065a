"""Averages the weights of two models: `average_weights.py FIRST SECOND SHARE OUT`.

OUT gets (1 - SHARE) times FIRST's weights and SHARE times SECOND's, in SECOND's number type. What fine-tuning gained stays
for the most part, and so does what it would have cost (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
Where SECOND is longer, as the embeddings of a stage with symbol substitution are, its further rows and columns stay as they
are. How the built-in model came about is in recipes/vlm-tiny-4.toml.
"""

import sys

from safetensors.torch import load_file, save_file

first, second, share, out = sys.argv[1:]
share = float(share)
first, second = load_file(first), load_file(second)


def fits(a, b):
    return a.dim() == b.dim() and all(n <= m for n, m in zip(a.shape, b.shape))


different = {k for k in first.keys() | second.keys() if k not in first or k not in second or not fits(first[k], second[k])}
if different:
    sys.exit(f"{out}: expected two models of one shape, found differences in {sorted(different)[:5]}")
mixed = {}
for name, b in second.items():
    a, b = first[name].float(), b.float()
    common = tuple(slice(0, n) for n in a.shape)
    b[common] = (1 - share) * a + share * b[common]
    mixed[name] = b.to(second[name].dtype)
save_file(mixed, out)
