"""Bootstrap intervals in plain numpy, with the draws that crates/tasks documents.

    pip install numpy
    python reference/metrics_bootstrap.py

writes testdata/metrics/bootstrap_golden.json. The generator is SplitMix64 written in Python
integers; resample r of seed s starts from mix(mix(s) + r), and a draw from n items is the upper 64
bits of the 128-bit product of output and n. Percentiles are numpy's.
"""

import json
import math
from pathlib import Path

import numpy as np

OUT = Path(__file__).resolve().parent.parent / "testdata" / "metrics" / "bootstrap_golden.json"
MASK = (1 << 64) - 1


def mix(bits):
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & MASK
    return bits ^ (bits >> 31)


def indices(seed, resample, count):
    state = mix((mix(seed) + resample) & MASK)
    for _ in range(count):
        state = (state + 0x9E3779B97F4A7C15) & MASK
        yield mix(state) * count >> 64


def mean(sample):
    return sum(sample) / len(sample)


def fact_f1(sample):
    correct, stated, recalled, required = (sum(column) for column in zip(*sample))
    precision = correct / stated if stated else 0.0
    recall = recalled / required if required else 0.0
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def interval(items, statistic, seed, resamples, confidence):
    values = [statistic([items[i] for i in indices(seed, r, len(items))]) for r in range(resamples)]
    low, high = np.percentile(values, [50 * (1 - confidence), 50 * (1 + confidence)])
    return {"estimate": statistic(items), "low": float(low), "high": float(high)}


def main():
    cases = []
    for items, statistic, seed, resamples, confidence in [
        ([float(i % 5 != 0) for i in range(60)], mean, 0, 2000, 0.95),
        ([round(math.sin(i) * i, 3) for i in range(40)], mean, 12345, 500, 0.9),
        ([[i % 3, 3, i % 4, 4 + i % 2] for i in range(50)], fact_f1, 0, 2000, 0.95),
    ]:
        cases.append(
            {
                "statistic": statistic.__name__,
                "seed": seed,
                "resamples": resamples,
                "confidence": confidence,
                "items": items,
                "expected": interval(items, statistic, seed, resamples, confidence),
            }
        )
    OUT.parent.mkdir(parents=True, exist_ok=True)
    OUT.write_text(json.dumps({"made_by": "reference/metrics_bootstrap.py", "cases": cases}) + "\n")


if __name__ == "__main__":
    main()
