"""Mixup as other libraries do it: float CHW images and class ids in, soft labels out."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch.nn.functional import one_hot

Mix = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

PEERS = ("timm", "torchvision", "kornia")

if torch.version.cuda is None:
    # torchvision's build for CUDA registers operators that a CPU torch lacks; mixing needs none.
    _OPERATORS = "torchvision._meta_registrations"
    sys.modules.setdefault(_OPERATORS, types.ModuleType(_OPERATORS))


def mixers(num_classes: int) -> dict[str, Mix | None]:
    """Every peer's mixup with ``lam ~ Beta(1, 1)``; None for a peer that does not load."""
    timm = _usable("timm.data.mixup")
    vision = _usable("torchvision.transforms.v2")
    kornia = _usable("kornia.augmentation")
    settings = {"num_classes": num_classes, "label_smoothing": 0.0}
    return {
        "timm batch": timm and timm.Mixup(mode="batch", **settings),
        "timm elem": timm and timm.Mixup(mode="elem", **settings),
        "torchvision": vision and vision.MixUp(num_classes=num_classes),
        "kornia": kornia and _with_soft_labels(kornia.RandomMixUpV2, num_classes),
    }


def cutmixers(num_classes: int) -> dict[str, Mix | None]:
    """CutMix of the peers that return soft labels themselves."""
    timm = _usable("timm.data.mixup")
    vision = _usable("torchvision.transforms.v2")
    cut = {"mixup_alpha": 0.0, "cutmix_alpha": 1.0, "label_smoothing": 0.0}
    return {
        "timm batch": timm and timm.Mixup(mode="batch", num_classes=num_classes, **cut),
        "timm elem": timm and timm.Mixup(mode="elem", num_classes=num_classes, **cut),
        "torchvision": vision and vision.CutMix(num_classes=num_classes),
    }


def _usable(module: str) -> Any:
    """None too for what is installed without its dependencies, or beside another torch."""
    try:
        return import_module(module)
    except (ImportError, RuntimeError):
        return None


def _with_soft_labels(random_mixup: Any, num_classes: int) -> Mix:
    """kornia returns both class ids and the partner's share."""
    mixup = random_mixup(data_keys=["input", "class"])

    def mix(images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mixed, targets = mixup(images, labels)
        own, partner = one_hot(targets[:, :2].long(), num_classes).unbind(1)
        return mixed, torch.lerp(own.float(), partner.float(), targets[:, 2:])

    return mix
