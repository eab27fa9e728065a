"""Writes testdata/data/bag_of_words.json and testdata/models/handcrafted.safetensors: hand-crafted features of others.

    python -m venv VENV && VENV/bin/pip install numpy scikit-image scikit-learn safetensors
    VENV/bin/python reference/data_handcrafted.py

Made with scikit-image 0.26 and scikit-learn 1.9: `TfidfVectorizer`, `hog`, `local_binary_pattern`, and NumPy's
`histogramdd` of colours.
"""

import json
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from skimage.feature import hog, local_binary_pattern
from sklearn.feature_extraction.text import TfidfVectorizer

OUT = Path(__file__).resolve().parent.parent / "testdata"

TEXTS = ["A red circle left of a blue star.", "two RED circles, and a star", "Is it a café? It's a café-bar!",
         "snake_case and 12 numbers, 3 more", "blue blue blue", "", "x y z"]
ASKED = [*TEXTS, "a blue circle and another blue thing", "nothing known here", "naïve café 12"]


def bags():
    golden = {"texts": TEXTS, "asked": ASKED}
    for name, least in (("all", 1), ("frequent", 2)):
        vectorizer = TfidfVectorizer(min_df=least).fit(TEXTS)
        words = sorted(vectorizer.vocabulary_, key=vectorizer.vocabulary_.get)
        golden[name] = {"words": words, "idf": vectorizer.idf_.round(8).tolist(),
                        "vectors": vectorizer.transform(ASKED).toarray().round(8).tolist()}
    (OUT / "data" / "bag_of_words.json").write_text(json.dumps(golden, ensure_ascii=False) + "\n")


def picture(side, seed):
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:side, 0:side]
    planes = [127.5 + 127.5 * np.sin(x * a + y * b + c) for a, b, c in rng.uniform(-0.4, 0.4, (3, 3))]
    planes = np.stack(planes, -1)
    planes[side // 3:side // 2, side // 4:side // 2] = rng.integers(0, 256, 3)
    planes[: side // 5] += rng.normal(0, 12, (side // 5, side, 3))
    return planes.round().clip(0, 255).astype(np.uint8)


def luma(rgb):
    r, g, b = (rgb[..., i].astype(np.uint32) for i in range(3))
    return ((r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16).astype(np.uint8)


def features():
    golden = {}
    for side, grid, bins, orientations in ((32, 4, 4, 9), (48, 3, 2, 6)):
        rgb = picture(side, side)
        place = side // grid
        cell = place // 2
        key = f"{side}"
        golden[f"{key}.rgb"] = rgb
        golden[f"{key}.lbp"] = local_binary_pattern(luma(rgb), 8, 1, "uniform").astype(np.uint8)
        golden[f"{key}.hog"] = hog(rgb / 255, orientations=orientations, pixels_per_cell=(cell, cell),
                                   cells_per_block=(2, 2), channel_axis=-1)
        golden[f"{key}.hog3"] = hog(luma(rgb) / 255, orientations=orientations, pixels_per_cell=(cell, cell),
                                    cells_per_block=(3, 3))
        # as the encoder puts them together: per place, each part times the root of its size
        blocks = hog(rgb / 255, orientations=orientations, pixels_per_cell=(cell, cell), cells_per_block=(2, 2),
                     channel_axis=-1, feature_vector=False)
        places = []
        for row in range(grid):
            for column in range(grid):
                part = np.s_[row * place:(row + 1) * place, column * place:(column + 1) * place]
                pixels = rgb[part].reshape(-1, 3) / 255
                colours, _ = np.histogramdd(pixels, bins=bins, range=[(0, 1)] * 3)
                patterns = np.bincount(golden[f"{key}.lbp"][part].ravel(), minlength=10)
                block = blocks[2 * row, 2 * column].ravel()
                parts = [colours.ravel() / place**2, patterns / place**2, block]
                places.append(np.concatenate([p * np.sqrt(len(p)) for p in parts]))
        golden[f"{key}.places"] = np.stack(places)
        golden[f"{key}.sizes"] = np.array([side, grid, bins, orientations])
    golden = {k: np.ascontiguousarray(v.astype(np.float32) if v.dtype == np.float64 else v) for k, v in golden.items()}
    save_file(golden, OUT / "models" / "handcrafted.safetensors")


if __name__ == "__main__":
    bags()
    features()
    for name in ("data/bag_of_words.json", "models/handcrafted.safetensors"):
        print(name, (OUT / name).stat().st_size)
