"""Real photographs that need no download: scikit-image's, cut into JPEGs in class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data

SUBJECTS = {
    "astronaut": data.astronaut,
    "cameraman": data.camera,
    "cat": data.chelsea,
    "coffee": data.coffee,
    "galaxies": data.hubble_deep_field,
    "motorcycle": lambda: data.stereo_motorcycle()[0],
    "retina": data.retina,
    "rocket": data.rocket,
}


def write_photographs(root: Path, per_class: int, seed: int = 0) -> None:
    """Write `per_class` JPEGs of each subject: the whole photograph, then parts of it."""
    rng = np.random.default_rng(seed)
    for name, load in SUBJECTS.items():
        photo = Image.fromarray(load()).convert("RGB")
        folder = root / name
        folder.mkdir(parents=True, exist_ok=True)
        for index in range(per_class):
            share = 1.0 if index == 0 else rng.uniform(0.6, 0.95)
            width, height = (round(side * share) for side in photo.size)
            x = int(rng.integers(photo.width - width + 1))
            y = int(rng.integers(photo.height - height + 1))
            part = photo.crop((x, y, x + width, y + height))
            part.thumbnail((640, 640))
            part.save(folder / f"{index:03d}.jpg", quality=90)
