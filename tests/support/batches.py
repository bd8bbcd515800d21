"""Batches for the backends: pixels of every dtype, plans with every kind of sample."""

import numpy as np
from support.formula import to_bfloat16

from dali_mixup import MixPlan


def pixels(dtype, shape, seed=0):
    rng = np.random.default_rng(seed)
    if dtype in ("uint8", "uint16"):
        return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)
    values = (rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 4, shape)).astype(np.float32)
    return to_bfloat16(values) if dtype == "bfloat16" else values.astype(dtype)


def mixed_plan(size, height, width):
    """Every kind of sample: mixed, selected, cut inside, at the edges, whole, empty."""
    rng = np.random.default_rng(size * height * width)
    kinds = [
        (0.3, None),
        (1.0, None),
        (0.0, None),
        (0.6, (0, height, 0, width)),
        (0.6, (height - 1, height, width - 1, width)),
        (0.5, (0, (height + 1) // 2, width // 2, width)),
        (0.7, (0, 0, 0, width)),
        (0.999999, None),
    ]
    lam, box = zip(*(kinds[i % len(kinds)] for i in range(size)), strict=True) if size else ((), ())
    boxes = np.array([b or (0, 0, 0, 0) for b in box], int).reshape(size, 4)
    return MixPlan(rng.permutation(size), lam, boxes)
