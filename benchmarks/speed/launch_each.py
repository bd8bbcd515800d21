"""One launch of each main kind of batch, for a profiler or a checker to look at.

python3 launch_each.py BATCH SIDE [SIDE ...]
"""

from __future__ import annotations

import sys

import numpy as np
import torch

from dali_mixup import Mixup, OutputFormat

BYTES = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}
KINDS = [
    ("uint8", OutputFormat(dtype="float16", layout="CHW", **BYTES), {"alpha": 1.0}),
    ("uint8", OutputFormat(dtype="float32", layout="CHW", **BYTES), {"alpha": 1.0}),
    ("float32", OutputFormat(), {"alpha": 1.0}),
    ("uint8", OutputFormat(dtype="float16", channels_last=True, **BYTES), {"cutmix_alpha": 1.0}),
]


def launch_each(batch: int, side: int) -> None:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(0, 1000, batch)).cuda()
    for dtype, output, kind in KINDS:
        images = rng.integers(0, 256, (batch, side, side, 3), np.uint8).astype(dtype)
        if dtype == "float32":
            images = np.ascontiguousarray(images.transpose(0, 3, 1, 2))
        mixup = Mixup(num_classes=1000, mode="elem", output=output, **kind)
        for part in mixup(torch.from_numpy(images).cuda(), labels):
            assert part.cpu().isfinite().all()


if __name__ == "__main__":
    batch, *sides = map(int, sys.argv[1:])
    for side in sides:
        launch_each(batch, side)
