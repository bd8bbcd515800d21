"""Colour augmentation and erasing of uint8 HWC images, by DALI's operators.

Used inside a pipeline with ``enable_conditionals=True``.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from nvidia.dali import fn, types
from nvidia.dali import math as dali_math
from nvidia.dali.auto_aug import augmentations
from nvidia.dali.auto_aug.rand_augment import apply_rand_augment, rand_augment
from nvidia.dali.auto_aug.trivial_augment import trivial_augment_wide

AUGMENTATIONS = ("randaugment", "timm-randaugment", "trivialaugment", "3-augment")
STRENGTH = {"randaugment": (2, 9), "timm-randaugment": (2, 27)}
"""Operations and magnitude, 0 to 30, where none are given."""

IMAGENET_MEAN = np.array([0.485, 0.456, 0.406], np.float32) * 255
IMAGENET_STD = np.array([0.229, 0.224, 0.225], np.float32) * 255


@contextmanager
def dalis_own_names() -> Iterator[None]:
    """Keep back the warnings that DALI's augmentations use operators by names DALI deprecates.

    DALI sets its own filter for them, so that a user's filter has no effect.
    """
    with warnings.catch_warnings(record=True) as caught:
        yield
    for found in caught:
        if "nvidia.dali.fn.experimental." not in str(found.message):
            warnings.warn_explicit(found.message, found.category, found.filename, found.lineno)


def augmented(images: Any, name: str, randaugment: tuple[int, int] | None, image_size: int) -> Any:
    """Apply the augmentation of this name, one of `AUGMENTATIONS`."""
    if name == "trivialaugment":
        return trivial_augment_wide(images)  # translates by up to 32 pixels, as torchvision's
    if name == "3-augment":
        return three_augment(images)
    n, m = randaugment or STRENGTH[name]
    shape = (image_size, image_size)
    if name == "randaugment":
        return rand_augment(images, n=n, m=m, shape=shape)
    return apply_rand_augment(timm_operations(), images, n=n, m=m, shape=shape, fill_value=128)


def timm_operations() -> list[Any]:
    """timm's 15 operations ("inc1"), and none 15 times: each is applied with probability 0.5."""
    a = augmentations
    operations = [
        a.auto_contrast, a.equalize, a.invert, a.rotate, a.posterize.augmentation((4, 0)),
        a.solarize, a.solarize_add, a.color, a.contrast, a.brightness, a.sharpness,
        a.shear_x, a.shear_y,
        a.translate_x.augmentation((0, 0.45)), a.translate_y.augmentation((0, 0.45)),
    ]  # fmt: skip
    return operations + [a.identity] * len(operations)


def three_augment(images: Any) -> Any:
    """Grey, solarised or blurred, one of the three (DeiT III)."""
    choice = fn.random.uniform(values=[0, 1, 2], dtype=types.INT32)
    if choice == 0:
        images = fn.saturation(images, saturation=0.0)
    elif choice == 1:
        bright = images >= 128
        inverted = types.Constant(255, dtype=types.UINT8) - images
        images = bright * inverted + (bright ^ True) * images
    else:
        images = fn.gaussian_blur(images, sigma=fn.random.uniform(range=[0.1, 2.0]))
    return images


def color_jittered(images: Any, strength: float) -> Any:
    """Brightness, contrast and saturation times a factor from 1 - strength to 1 + strength."""

    def factor() -> Any:
        return fn.random.uniform(range=[max(0.0, 1 - strength), 1 + strength])

    return fn.color_twist(images, brightness=factor(), contrast=factor(), saturation=factor())


def randomly_erased(images: Any, probability: float) -> Any:
    """Replace a rectangle by noise of ImageNet's mean and standard deviation, as timm's "pixel".

    The rectangle has 2 to 33 % of the image's area and an aspect ratio of 0.3 to 3.3.
    """
    if fn.random.coin_flip(probability=probability, dtype=types.BOOL):
        area = fn.random.uniform(range=[0.02, 1 / 3])
        ratio = dali_math.exp(fn.random.uniform(range=[math.log(0.3), -math.log(0.3)]))
        height = dali_math.min(dali_math.sqrt(area * ratio), 1.0)
        width = dali_math.min(dali_math.sqrt(area / ratio), 1.0)
        rectangle = {
            "anchor": fn.stack(
                fn.random.uniform(range=[0.0, 1.0]) * (1.0 - height),
                fn.random.uniform(range=[0.0, 1.0]) * (1.0 - width),
            ),
            "shape": fn.stack(height, width),
            "axes": (0, 1),
            "normalized": True,
        }
        noise = fn.random.normal(images, dtype=types.FLOAT) * types.Constant(IMAGENET_STD)
        noise = dali_math.clamp(noise + types.Constant(IMAGENET_MEAN), 0.0, 255.0)
        noise = fn.cast(noise, dtype=types.UINT8)
        kept = fn.erase(images, fill_value=0, **rectangle)
        images = kept + (noise - fn.erase(noise, fill_value=0, **rectangle))
    return images
