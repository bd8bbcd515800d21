"""What is measured of a trained model: accuracy, calibration, attacks, shifts, outsiders.

Images are normalised as in training: 0 to 255 became -1 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn.functional import (
    affine_grid,
    avg_pool2d,
    cross_entropy,
    grid_sample,
)

LEVEL = 2 / 255
"""One grey level in the units of the normalised images."""

ATTACKED, SHIFTED = 300, 1000
"""So many test images are attacked, and shifted."""

PGD_STEPS = 10
BINS = 15

Shift = Callable[[torch.Tensor], torch.Tensor]


def measured(
    model: nn.Module,
    images: torch.Tensor,
    labels: torch.Tensor,
    outsiders: torch.Tensor,
    held_out: tuple[torch.Tensor, torch.Tensor],
    seed: int,
) -> dict[str, Any]:
    """All measures. `held_out` are images and labels by which the temperature is chosen."""
    logits = logits_of(model, images)
    temperature = best_temperature(logits_of(model, held_out[0]), held_out[1])
    found: dict[str, Any] = {
        "accuracy": accuracy(logits, labels),
        "nll": float(cross_entropy(logits, labels)),
        "ece": calibration_error(logits, labels),
        "temperature": temperature,
        "nll_scaled": float(cross_entropy(logits / temperature, labels)),
        "ece_scaled": calibration_error(logits / temperature, labels),
        "overconfidence": float(confidence(logits).mean()) - accuracy(logits, labels),
        "reliability": reliability(logits, labels),
    }
    attacked, target = images[:ATTACKED], labels[:ATTACKED]
    for levels in (4, 8):
        radius = levels * LEVEL
        for name, attack in (("fgsm", fgsm), ("pgd", pgd)):
            changed = attack(model, attacked, target, radius)
            found[f"{name}_{levels}"] = accuracy(logits_of(model, changed), target)
    shifted, target = images[:SHIFTED], labels[:SHIFTED]
    for name, shift in shifts(seed).items():
        found[name] = accuracy(logits_of(model, shift(shifted)), target)
    found["ood_auroc"] = auroc(
        confidence(logits[:SHIFTED]), confidence(logits_of(model, outsiders))
    )
    return found


@torch.no_grad()
def logits_of(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    model.eval()
    return torch.cat([model(part) for part in images.split(250)])


def accuracy(logits: torch.Tensor, labels: torch.Tensor) -> float:
    return float((logits.argmax(1) == labels).float().mean())


def confidence(logits: torch.Tensor) -> torch.Tensor:
    return logits.softmax(1).amax(1)


def calibration_error(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """Expected calibration error in 15 bins (Guo et al., ICML 2017)."""
    multiclass = import_module("torchmetrics.functional.classification")
    error = multiclass.multiclass_calibration_error(
        logits.softmax(1), labels, logits.shape[1], n_bins=BINS
    )
    return float(error)


def reliability(logits: torch.Tensor, labels: torch.Tensor) -> list[list[float]]:
    """For each bin of confidence: predictions, sum of their confidences, how many were right."""
    sure, right = confidence(logits), logits.argmax(1) == labels
    bins = (sure * BINS).long().clamp(max=BINS - 1)
    return [
        [int((bins == b).sum()), float(sure[bins == b].sum()), int(right[bins == b].sum())]
        for b in range(BINS)
    ]


def best_temperature(logits: torch.Tensor, labels: torch.Tensor) -> float:
    """The temperature of the least negative log-likelihood, in steps of 2 % (Guo et al., 2017)."""
    tried = [1.02**step for step in range(-120, 121)]
    return min(tried, key=lambda each: float(cross_entropy(logits / each, labels)))


def fgsm(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, radius: float
) -> torch.Tensor:
    """One step along the sign of the gradient (Goodfellow et al., ICLR 2015)."""
    return (images + radius * gradient_of(model, images, labels).sign()).clamp(-1, 1)


def pgd(
    model: nn.Module, images: torch.Tensor, labels: torch.Tensor, radius: float
) -> torch.Tensor:
    """10 steps of a quarter of the radius, from the image itself (Madry et al., ICLR 2018)."""
    changed = images
    for _ in range(PGD_STEPS):
        step = radius / 4 * gradient_of(model, changed, labels).sign()
        changed = (images + (changed + step - images).clamp(-radius, radius)).clamp(-1, 1)
    return changed


def gradient_of(model: nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    model.eval()
    images = images.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(images), labels), images)
    return gradient


def shifts(seed: int) -> dict[str, Shift]:
    """Four kinds of change to the images, each at three strengths."""
    return {
        **{f"rotation_{degrees}": partial(rotated, degrees=degrees) for degrees in (10, 20, 30)},
        **{f"blur_{times}": partial(blurred, times=times) for times in (1, 2, 4)},
        **{f"noise_{levels}": partial(noisy, levels=levels, seed=seed) for levels in (16, 32, 64)},
        **{f"contrast_{share}": partial(faded, share=share) for share in (0.6, 0.4, 0.2)},
    }


def rotated(images: torch.Tensor, degrees: float) -> torch.Tensor:
    """Black beyond the border."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = torch.tensor([[cosine, -sine, 0.0], [sine, cosine, 0.0]]).expand(len(images), 2, 3)
    grid = affine_grid(turn, list(images.shape), align_corners=False)
    return grid_sample(images + 1, grid, align_corners=False) - 1


def blurred(images: torch.Tensor, times: int) -> torch.Tensor:
    """The mean of 3 x 3 pixels, so many times; black beyond the border."""
    for _ in range(times):
        images = avg_pool2d(images + 1, 3, 1, 1) - 1
    return images


def noisy(images: torch.Tensor, levels: float, seed: int) -> torch.Tensor:
    """Normal noise of a standard deviation in grey levels."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(images.shape, generator=generator)
    return (images + levels * LEVEL * noise).clamp(-1, 1)


def faded(images: torch.Tensor, share: float) -> torch.Tensor:
    """The contrast reduced to a share of it, around each image's mean."""
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + share * (images - mean)


def auroc(inside: torch.Tensor, outside: torch.Tensor) -> float:
    """How probably an inside value is above an outside one; 0.5 by chance."""
    binary = import_module("torchmetrics.functional.classification")
    target = torch.cat([torch.ones(len(inside)), torch.zeros(len(outside))]).long()
    return float(binary.binary_auroc(torch.cat([inside, outside]), target))
