"""What a second thread brings where nothing else runs: the blend alone, in one thread and in two.

    python -m benchmarks.speed.threads --json benchmarks/results/cpu-threads.json

64 images of 224 x 224 x 3, without labels, plan and memory of the output. Only numpy runs beside
it, so that no thread of torch waits busily for work.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np

from benchmarks.speed.cpu import CORES
from dali_mixup.backends import cpu, threads
from dali_mixup.cli.bench import Method, Work
from dali_mixup.cli.measure import Row, interleaved, record, show

WORKS = {
    "float32 CHW -> float32 CHW": Work(from_uint8=False),
    "uint8 HWC -> normalised float32 CHW": Work(),
    "uint8 HWC -> normalised float16 CHW": Work(dtype="float16"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record the run here")
    parser.add_argument("--rounds", type=int, default=100)
    arguments = parser.parse_args()
    rows: list[Row] = []
    for title, work in WORKS.items():
        timers = {name: partial(ms_an_image, call) for name, call in methods(work).items()}
        measured = interleaved(
            timers, rounds=arguments.rounds, warm_up=5, unit="ms",
            bases={"one_copy": "copy, 1 thread", "one_thread": "dali-mixup, 1 thread"},
        )  # fmt: skip
        show(title, measured)
        rows += [{"work": title} | row for row in measured]
    if arguments.json:
        record(arguments.json, cores=len(CORES), packages=("numpy", "numba"), rows=rows)


def methods(work: Work) -> dict[str, Method]:
    images, mixup = work.batch()[0].numpy(), work.mixup
    plan, mixed = mixup.plan(work.batch_size), np.zeros(work.output_shape, work.dtype)
    source = np.ones_like(mixed)

    def copy(first: int, last: int) -> None:
        np.copyto(mixed[first:last], source[first:last])

    def blend(workers: int) -> object:
        return cpu.blend(
            images, plan, mixup.output, layout=mixup.layout, out=mixed, workers=workers
        )

    return {
        "copy, 1 thread": partial(threads.share, copy, work.batch_size, 1),
        "copy, 2 threads": partial(threads.share, copy, work.batch_size, 2),
        "dali-mixup, 1 thread": partial(blend, 1),
        "dali-mixup, 2 threads": partial(blend, 2),
    }


def ms_an_image(method: Method) -> float:
    start = perf_counter()
    method()
    return (perf_counter() - start) * 1e3 / Work().batch_size


if __name__ == "__main__":
    main()
