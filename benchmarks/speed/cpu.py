"""Blended images and soft labels on one core and on two: dali-mixup beside its peers, ms an image.

Every method hands out 64 images of 3 x 224 x 224 and dense labels of 1,000 classes; giving
the result back belongs to its time. Fresh memory costs page faults, so the run is repeated with
glibc set to keep freed memory (the condition "memory kept"). On one core all methods have one
thread, and on two cores two.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from functools import partial
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from dali_mixup.advice import UncompiledWarning
from dali_mixup.backends import cpu
from dali_mixup.cli.bench import (
    Method,
    Work,
    methods,
    microseconds_an_image,
    with_draws,
    written_out,
)
from dali_mixup.cli.measure import Row, interleaved, record, show
from dali_mixup.cli.peers import PEERS

KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(16 << 30)}

CORES = sorted(os.sched_getaffinity(0))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record the run here")
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    memory_is_kept = KEEP_MEMORY.items() <= os.environ.items()
    condition = "memory kept" if memory_is_kept else "default allocator"
    rows = []
    for title, work in {
        "float32 CHW -> float32 CHW + soft labels": Work(from_uint8=False),
        "uint8 HWC -> normalised float32 CHW + soft labels": Work(),
        "uint8 HWC -> normalised float16 CHW + soft labels": Work(dtype="float16"),
    }.items():
        for threads in (1, 2):
            run_on(threads)
            measured = measure(every_method(work), arguments.rounds)
            show(f"{title}, {condition}, threads: {threads}", measured)
            about = {"condition": condition, "threads": threads, "work": title}
            rows += [about | row for row in measured]
    if not memory_is_kept:
        rows += rows_with_memory_kept(arguments.rounds)
    if arguments.json:
        record(
            arguments.json,
            cores=len(CORES),
            packages=("numpy", "numba", "torch", *PEERS),
            rows=rows,
        )


def run_on(threads: int) -> None:
    """Use so many threads, on as many cores."""
    os.sched_setaffinity(0, CORES[-threads:])
    torch.set_num_threads(threads)


def every_method(work: Work) -> dict[str, Method | None]:
    images, labels = work.batch()
    compiled = torch.compile(written_out(work))
    return methods(work) | {
        "dali-mixup, blend alone": into_memory_that_is_there(work, images),
        "dali-mixup, without numba": without_numba(partial(work.mixup, images, labels)),
        "torch.compile": with_draws(compiled, images, labels),
    }


def into_memory_that_is_there(work: Work, images: torch.Tensor) -> Method:
    """The images without labels, plan and memory of the output."""
    mixup = work.mixup
    plan = mixup.plan(work.batch_size)
    mixed = np.zeros(work.output_shape, work.dtype)
    return partial(
        cpu.blend, images.numpy(), plan, mixup.output,
        layout=mixup.layout, out=mixed, workers=torch.get_num_threads(),
    )  # fmt: skip


def without_numba(method: Method) -> Method:
    """The reference, in plain numpy."""

    def call() -> object:
        with patch.object(cpu, "compiled_loops", lambda: (None, "not asked for")):
            return method()

    return call


def measure(methods: dict[str, Method | None], rounds: int) -> list[Row]:
    timers = {name: method and partial(ms_an_image, method) for name, method in methods.items()}
    return interleaved(timers, rounds=rounds, warm_up=5, unit="ms", bases={"copy": "copy"})


def ms_an_image(method: Method) -> float:
    return microseconds_an_image(method, Work()) / 1e3


def rows_with_memory_kept(rounds: int) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows.json")
        again = [sys.executable, "-m", __spec__.name, "--rounds", str(rounds), "--json", str(path)]
        subprocess.run(again, env=os.environ | KEEP_MEMORY, check=True)
        return json.loads(path.read_text())["rows"]


if __name__ == "__main__":
    warnings.simplefilter("ignore", UncompiledWarning)
    main()
