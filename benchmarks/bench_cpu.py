"""Blended images and soft labels on one core: dali-mixup beside its peers, in ms an image.

Every method hands out 64 float32 images of 3 x 224 x 224 and dense labels of 1,000 classes; giving
the result back belongs to its time. Fresh memory costs page faults, so the run is repeated with
glibc told to keep what it has.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from measure import Row, interleaved, record, show
from peers import PEERS, Mix, mixers
from torch.nn.functional import one_hot

from dali_mixup import Mixup, OutputFormat, numpy_backend

BATCH, SIDE, NUM_CLASSES = 64, 224, 1000
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}

Method = Callable[[], object]
Prepare = Callable[[torch.Tensor], torch.Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record the run here")
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    torch.set_num_threads(1)

    memory_is_kept = KEEP_MEMORY.items() <= os.environ.items()
    condition = "memory kept" if memory_is_kept else "as glibc comes"
    rows = []
    for work, methods in {
        "float32 CHW -> float32 CHW + soft labels": from_float32(),
        "uint8 HWC -> normalised float32 CHW + soft labels": from_uint8(),
    }.items():
        measured = measure(methods, arguments.rounds)
        show(f"{work}, {condition}", measured)
        rows += [{"condition": condition, "work": work} | row for row in measured]
    if not memory_is_kept:
        rows += rows_with_memory_kept(arguments.rounds)
    if arguments.json:
        record(arguments.json, cores=1, packages=("numpy", "torch", *PEERS), rows=rows)


def from_float32() -> dict[str, Method | None]:
    images = torch.rand(BATCH, 3, SIDE, SIDE)
    return every_method(images, output=None, prepare=lambda images: images)


def from_uint8() -> dict[str, Method | None]:
    images = torch.randint(256, (BATCH, SIDE, SIDE, 3), dtype=torch.uint8)
    output = OutputFormat(dtype="float32", layout="CHW", mean=MEAN, std=STD)
    return every_method(images, output, prepare=normalised)


def normalised(images: torch.Tensor) -> torch.Tensor:
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return images.permute(0, 3, 1, 2).contiguous().float().sub_(mean).div_(std)


def every_method(
    images: torch.Tensor, output: OutputFormat | None, prepare: Prepare
) -> dict[str, Method | None]:
    labels = torch.randint(NUM_CLASSES, (BATCH,))
    mixup = Mixup(num_classes=NUM_CLASSES, alpha=1.0, output=output)
    expression = partial(torch_expression, prepare)
    return {
        "copy": copy_of_the_output(),
        "numpy_backend, out=": into_memory_that_is_there(mixup, images.numpy(), labels.numpy()),
        "dali-mixup": lambda: mixup(images, labels),
        **{
            name: mix and peer(mix, prepare, images.clone(), labels)  # timm writes into its input
            for name, mix in mixers(NUM_CLASSES).items()
        },
        "torch eager": with_draws(expression, images, labels),
        "torch.compile": with_draws(torch.compile(expression), images, labels),
    }


def copy_of_the_output() -> Method:
    source = np.ones((BATCH, 3, SIDE, SIDE), np.float32)
    return partial(np.copyto, source.copy(), source)


def into_memory_that_is_there(mixup: Mixup, images: np.ndarray, labels: np.ndarray) -> Method:
    plan = mixup.plan(BATCH)
    layout = "CHW" if images.shape[1] == 3 else "HWC"
    mixed = np.zeros((BATCH, 3, SIDE, SIDE), np.float32)
    soft = np.zeros((BATCH, NUM_CLASSES), np.float32)

    def mix() -> None:
        numpy_backend.blend(images, plan, mixup.output, layout=layout, out=mixed)
        numpy_backend.soft_labels(labels, plan, NUM_CLASSES, out=soft)

    return mix


def peer(mix: Mix, prepare: Prepare, images: torch.Tensor, labels: torch.Tensor) -> Method:
    return lambda: mix(prepare(images), labels)


def torch_expression(
    prepare: Prepare,
    images: torch.Tensor,
    labels: torch.Tensor,
    partner: torch.Tensor,
    lam: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    images, soft = prepare(images), one_hot(labels, NUM_CLASSES).float()
    return torch.lerp(images[partner], images, lam), torch.lerp(soft[partner], soft, lam)


def with_draws(
    expression: Callable[..., object], images: torch.Tensor, labels: torch.Tensor
) -> Method:
    return lambda: expression(
        images, labels, torch.randperm(BATCH), torch.tensor(random.betavariate(1, 1))
    )


def measure(methods: dict[str, Method | None], rounds: int) -> list[Row]:
    timers = {name: method and partial(ms_an_image, method) for name, method in methods.items()}
    return interleaved(timers, rounds=rounds, warm_up=5, unit="ms", bases={"copy": "copy"})


def ms_an_image(method: Method) -> float:
    start = perf_counter()
    method()
    return (perf_counter() - start) * 1e3 / BATCH


def rows_with_memory_kept(rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.json")
        again = [sys.executable, __file__, "--rounds", str(rounds), "--json", str(path)]
        subprocess.run(again, env=os.environ | KEEP_MEMORY, check=True)
        return json.loads(path.read_text())["rows"]


if __name__ == "__main__":
    main()
