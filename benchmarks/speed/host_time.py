"""Host time of a GPU batch: from ``next()`` to the launch, which a recorder takes the place of.

The GPU backend runs on CPU tensors, so that DALI, CuPy's launch and torch's queries of the device
are not part of the time. Images are small: no pixel is touched. The time is that of the thread.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import thread_time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from dali_mixup import Mixup, OutputFormat
from dali_mixup.backends import inputs
from dali_mixup.backends.cuda import backend
from dali_mixup.backends.cuda.launch import LabelArguments, batch_parameters, plan_parameters
from dali_mixup.cli.measure import record, show
from dali_mixup.loaders.mixer import BatchMixer

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from support.gpus_place import take_the_gpus_place

BATCH_SIZES = (64, 256, 1024)
SETTINGS = {
    "mixup": {"alpha": 0.8},
    "mixup, elem": {"alpha": 0.8, "mode": "elem"},
    "mixup + CutMix (DeiT)": {"alpha": 0.8, "cutmix_alpha": 1.0, "label_smoothing": 0.1},
    "mixup + CutMix, elem": {"alpha": 0.8, "cutmix_alpha": 1.0, "mode": "elem"},
}
OUTPUT = OutputFormat(
    dtype="float16", layout="CHW", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
)
NUM_CLASSES = 1000
CALLS = 300


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record the run here")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)
    replace_the_gpu()

    rows = []
    for name, settings in SETTINGS.items():
        measured = [
            {"method": f"B = {size}"} | shares(size, settings, arguments.rounds)
            for size in BATCH_SIZES
        ]
        show(f"{name}, microseconds a batch", measured)
        rows += [{"work": name} | row for row in measured]
    if arguments.json:
        record(arguments.json, cores=1, packages=("numpy", "torch"), rows=rows)


def replace_the_gpu() -> None:
    """Let the GPU backend take CPU tensors, and nothing be launched."""
    take_the_gpus_place(pytest.MonkeyPatch(), lambda launch, parameters, device: None)
    inputs._OF_TENSORS["cpu"] = "cuda.backend"


def shares(size: int, settings: dict[str, Any], rounds: int) -> dict[str, float]:
    """Where the time goes; each share is measured by itself."""
    images = torch.zeros((size, 32, 32, 3), dtype=torch.uint8)
    labels = torch.zeros(size, dtype=torch.int64)
    mixup = Mixup(num_classes=NUM_CLASSES, output=OUTPUT, **settings)
    mixer, batch = BatchMixer(mixup), [{"data": images, "label": labels}]
    mixer._labels_seen = None  # as after the first epoch, and for labels on a GPU
    source = SimpleNamespace(output_map=["data", "label"])
    plan = mixup.plan(size, (32, 32))
    form = OUTPUT.resolve(tuple(images.shape), "uint8", "HWC")
    parts: dict[str, Callable[[], object]] = {
        "next": partial(mixer.next_from, lambda: batch, source),
        "draw": partial(mixup.plan, size, (32, 32)),
        "mix": partial(mixup.mix, images, labels, plan),
        "pack": partial(plan_parameters, plan),
        "parameters": partial(batch_parameters, form, 0, 0, LabelArguments()),
        "outputs": partial(backend._memory_for, form, images),
    }
    samples = {name: [] for name in parts}
    for _ in range(rounds):
        for name, call in parts.items():
            start = thread_time()
            for _ in range(CALLS):
                call()
            samples[name].append((thread_time() - start) / CALLS * 1e6)
    medians = {name: float(np.median(times)) for name, times in samples.items()}
    return {f"{name}_us": round(value, 2) for name, value in medians.items()}


if __name__ == "__main__":
    main()
