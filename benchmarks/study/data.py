"""Image folders for the study: handwritten digits as PNG files, and training labels replaced."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

TRAINING_IMAGES = 250


def write_digits(root: Path, seed: int) -> None:
    """scikit-learn's 1,797 digits of 8 x 8 pixels: 250 in train/, the others in val/, by `seed`."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    for position, index in enumerate(order):
        part = "train" if position < TRAINING_IMAGES else "val"
        pixels = np.rint(digits.images[index] * (255 / 16)).astype(np.uint8)
        path = root / part / str(digits.target[index]) / f"{index:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert("RGB").save(path)


def with_replaced_labels(clean: Path, noisy: Path, share: float, seed: int) -> None:
    """The same files in folders of which `share` are drawn anew, from the other classes."""
    rng = np.random.default_rng(seed)
    names = sorted(folder.name for folder in clean.iterdir() if folder.is_dir())
    for name in names:
        (noisy / name).mkdir(parents=True, exist_ok=True)
    for file in sorted(clean.glob("*/*")):
        label = file.parent.name
        if rng.random() < share:
            label = str(rng.choice([name for name in names if name != label]))
        (noisy / label / f"{file.parent.name}_{file.name}").symlink_to(file.resolve())
