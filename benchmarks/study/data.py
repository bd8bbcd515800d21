"""Image folders for the study: Fashion-MNIST, or scikit-learn's digits, and replaced labels.

Each writes ``train-SIZE-SEED``, ``held_out``, ``val`` and ``outsiders``, images of something else.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

from benchmarks.study.idx import read_idx

FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
"""Where Debian's package dataset-fashion-mnist puts the files. Xiao et al., "Fashion-MNIST: a Novel
Image Dataset for Benchmarking Machine Learning Algorithms", 2017. MIT licence."""

HELD_OUT, OUTSIDERS = 2000, 1000
NOISES = (20, 40)
"""Percentages of wrong labels."""


def write_fashion(root: Path, idx: Path, sizes: Sequence[int], seeds: Sequence[int]) -> None:
    """28 x 28 pixels, ten classes; the last 2,000 training images are held out, digits outside."""
    images, labels = read_part(idx, "train")
    write_folder(root / "val", *read_part(idx, "t10k"))
    write_folder(root / "held_out", images[-HELD_OUT:], labels[-HELD_OUT:])
    for seed in seeds:
        for size in sizes:
            chosen = subset(labels[:-HELD_OUT], size, seed)
            write_folder(root / f"train-{size}-{seed}", images[chosen], labels[chosen])
    digits = load_digits().images[:OUTSIDERS]
    write_folder(root / "outsiders", as_bytes(digits), np.zeros(len(digits), int), side=28)


def read_part(idx: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images, uint8 (N, 28, 28), and labels, uint8 (N,), of "train" or "t10k"."""
    return read_idx(idx / f"{part}-images-idx3-ubyte"), read_idx(idx / f"{part}-labels-idx1-ubyte")


def write_digits(root: Path, size: int, seeds: Sequence[int]) -> None:
    """8 x 8 pixels, ten classes; 300 held out, 500 for the test, crops of photographs outside."""
    digits = load_digits()
    images, labels = as_bytes(digits.images), digits.target
    write_folder(root / "held_out", images[:300], labels[:300])
    write_folder(root / "val", images[300:800], labels[300:800])
    for seed in seeds:
        chosen = 800 + subset(labels[800:], size, seed)
        write_folder(root / f"train-{size}-{seed}", images[chosen], labels[chosen])
    crops = np.stack([
        image[y : y + 8, x : x + 8].mean(2).astype(np.uint8)
        for image in load_sample_images().images
        for y in range(0, 400, 20)
        for x in range(0, 625, 25)
    ])  # fmt: skip
    write_folder(root / "outsiders", crops, np.zeros(len(crops), int))


def as_bytes(digits: np.ndarray) -> np.ndarray:
    return np.rint(digits * (255 / 16)).astype(np.uint8)


def write_folder(
    folder: Path, images: np.ndarray, labels: np.ndarray, side: int | None = None
) -> None:
    """PNG files in a folder for each class, resized to `side` pixels where that is given."""
    for label in np.unique(labels):
        (folder / str(label)).mkdir(parents=True, exist_ok=True)
    for number, (pixels, label) in enumerate(zip(images, labels, strict=True)):
        image = Image.fromarray(pixels)
        image = image if side is None else image.resize((side, side))
        image.save(folder / str(label) / f"{number:05d}.png", compress_level=1)


def subset(labels: np.ndarray, size: int, seed: int) -> np.ndarray:
    """The indices of `size` samples, as many of each class, drawn by `seed`."""
    rng = np.random.default_rng(seed)
    classes = np.unique(labels)
    each = size // len(classes)
    chosen = [rng.permutation(np.flatnonzero(labels == label))[:each] for label in classes]
    return np.sort(np.concatenate(chosen))


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
