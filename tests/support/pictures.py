"""Pictures that show which sample they are, and a model that keeps what it is trained on.

The picture of sample i is black except for pixel i, and its class id is i. A mixed picture shows
the weight of each sample in it, as its row of soft labels does, so that both have to be equal.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

SAMPLES, SIDE = 14, 8


def picture(sample: int) -> np.ndarray:
    """uint8, shape (SIDE, SIDE, 3)."""
    pixels = np.zeros((SIDE * SIDE, 3), np.uint8)
    pixels[sample] = 255
    return pixels.reshape(SIDE, SIDE, 3)


def write_pictures(folder: Path) -> Path:
    """One PNG per class folder."""
    from PIL import Image

    for sample in range(SAMPLES):
        path = folder / f"{sample:02d}" / "picture.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(picture(sample)).save(path)
    return folder


def dataset() -> torch.utils.data.TensorDataset:
    """float32 images (3, SIDE, SIDE) in [0, 1], and class ids."""
    images = torch.tensor(np.stack([picture(sample) for sample in range(SAMPLES)]))
    return torch.utils.data.TensorDataset(
        images.permute(0, 3, 1, 2).float() / 255, torch.arange(SAMPLES)
    )


def weights_in(images: torch.Tensor) -> torch.Tensor:
    """The weight of each sample in each image, shape (B, SAMPLES), whatever the pixels' scale."""
    channels_first = images if images.shape[1] <= 4 else images.permute(0, 3, 1, 2)
    pixels = channels_first[:, :3].double().mean(1).flatten(1)
    above_black = pixels - pixels.amin(1, keepdim=True)
    return (above_black / above_black.sum(1, keepdim=True))[:, :SAMPLES].float()


class Witness(torch.nn.Module):
    """A linear model that keeps its images and, in its criterion, its targets.

    Targets are rows of soft labels or, where there are no labels, another view.
    """

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(SAMPLES, SAMPLES)
        self.images: list[torch.Tensor] = []
        self.targets: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.images.append(images.detach().clone())
        return self.linear(weights_in(images))

    def criterion(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rows = targets if targets.ndim == 2 else weights_in(targets)
        self.targets.append(rows.detach().clone())
        return torch.nn.functional.cross_entropy(logits, rows)


def lams_of(targets: torch.Tensor) -> list[float]:
    """The larger of lam and 1 - lam that one plan has drawn; empty where nothing is mixed."""
    return sorted({lam for lam in targets.amax(1).tolist() if lam < 0.999999})


def by_epoch(batches: list[Any], epochs: int) -> list[list[Any]]:
    """Batches in the order of delivery, in equal parts."""
    steps, rest = divmod(len(batches), epochs)
    assert rest == 0, f"{len(batches)} batches in {epochs} epochs"
    return [batches[epoch * steps : (epoch + 1) * steps] for epoch in range(epochs)]
