"""The forms of masks, the same for every backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from dali_mixup.plan import MixPlan

Region = tuple[slice, slice]

DTYPES = ("bool", "uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64")


def mask_shape(shape: tuple[int, ...], dtype: str, plan: Any) -> tuple[int, int, int]:
    """Batch size, height and width of masks that a plan mixes.

    Parameters
    ----------
    shape, dtype
        Of the masks; `dtype` is numpy's name.
    plan : MixPlan or DevicePlan

    Raises
    ------
    TypeError
        Masks that are no integers.
    ValueError
        Another shape than (B, H, W), (B, 1, H, W) or (B, H, W, 1), or a plan that does not fit it,
        or one that weighs samples.
    """
    if dtype not in DTYPES:
        raise TypeError(
            f"masks: expected integers of 8 to 64 bits or bools, got {dtype}; cast them"
        )
    (height, width), batch = mask_size(shape), shape[0]
    plan.require_fit(batch, height, width)
    require_selecting(getattr(plan, "plan", plan))
    return batch, height, width


def mask_size(shape: tuple[int, ...]) -> tuple[int, int]:
    """Height and width of masks of this shape; ValueError where it is none of masks."""
    sides = shape
    if len(shape) == 4 and 1 in (shape[1], shape[3]):
        sides = (shape[0], *shape[2:]) if shape[1] == 1 else shape[:3]
    if len(sides) != 3:
        raise ValueError(
            f"masks: expected shape (B, H, W), (B, 1, H, W) or (B, H, W, 1), got {tuple(shape)}"
        )
    return sides[1], sides[2]


def require_selecting(plan: MixPlan) -> None:
    """Raise ValueError where a plan weighs a sample, which integers of a mask cannot be."""
    weighs = (plan.lam > 0) & (plan.lam < 1)
    if plan.box is not None:
        weighs &= ~((plan.box[:, 0] < plan.box[:, 1]) & (plan.box[:, 2] < plan.box[:, 3]))
    if bad := np.flatnonzero(weighs).tolist():
        raise ValueError(
            f"plan: expected a box, or lam of 0 or 1, for each sample beside masks, got lam "
            f"{plan.lam[bad[0]]:.6g} at row {bad[0]}; set Mixup(alpha=0, cutmix_alpha=1.0)"
        )


def regions(plan: MixPlan) -> dict[int, Region]:
    """The rows and columns that samples take from their partners."""
    found = {
        sample: (slice(None), slice(None)) for sample in np.flatnonzero(plan.lam == 0).tolist()
    }
    if plan.box is not None:
        for sample, (y0, y1, x0, x1) in enumerate(plan.box.tolist()):
            if y0 < y1 and x0 < x1:
                found[sample] = slice(y0, y1), slice(x0, x1)
    return found
