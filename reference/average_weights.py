"""Averages the weights of two models of one shape: `average_weights.py FIRST SECOND SHARE OUT`.

OUT gets (1 - SHARE) times FIRST's weights and SHARE times SECOND's, in SECOND's number type. What fine-tuning gained stays
for the most part, and so does what it would have cost (Wortsman et al., "Robust fine-tuning of zero-shot models", 2022).
The built-in model: `average_weights.py runs/vlm-tiny/model/model.safetensors runs/vlm-tiny-3/model/model.safetensors 0.7
models/vlm-tiny/model.safetensors`.
"""

import sys

from safetensors.torch import load_file, save_file

first, second, share, out = sys.argv[1:]
share = float(share)
first, second = load_file(first), load_file(second)
different = {k for k in first.keys() | second.keys() if k not in first or k not in second or first[k].shape != second[k].shape}
if different:
    sys.exit(f"{out}: expected two models of one shape, found differences in {sorted(different)[:5]}")
mixed = {k: ((1 - share) * first[k].float() + share * w.float()).to(w.dtype) for k, w in second.items()}
save_file(mixed, out)
