"""How the time of an image grows with the batch and with its size: dali-mixup beside timm.

From uint8 HWC to normalised float32 CHW and soft labels of 100 classes, on one core and on two.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

from benchmarks.speed.cpu import CORES, run_on
from dali_mixup.cli.bench import Work, methods, microseconds_an_image
from dali_mixup.cli.measure import Row, interleaved, record, show

METHODS = ("copy", "dali-mixup", "timm batch")
BATCH_SIZES = (1, 4, 16, 64, 256, 1024)
SIDES = (32, 64, 128, 224, 320, 512)
SIDE_OF_BATCHES, BATCH_OF_SIDES = 64, 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record the run and plot it here")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()

    works = {
        "batch": [Work(size, SIDE_OF_BATCHES, 100) for size in BATCH_SIZES],
        "side": [Work(BATCH_OF_SIDES, side, 100) for side in SIDES],
    }
    rows: list[Row] = []
    for grows, series in works.items():
        for work in series:
            measured = measure(work, arguments.rounds)
            show(work.title, measured)
            about = {"grows": grows, "batch": work.batch_size, "side": work.image_size}
            rows += [about | row for row in measured]
    if arguments.json:
        packages = ("numpy", "numba", "torch", "timm")
        record(arguments.json, cores=len(CORES), packages=packages, rows=rows)
        plot(rows).savefig(arguments.json.with_suffix(".png"), dpi=120)


def measure(work: Work, rounds: int) -> list[Row]:
    every = methods(work)

    def on(threads: int, name: str) -> float:
        run_on(threads)
        return microseconds_an_image(every[name], work)  # type: ignore[arg-type]

    timers = {
        f"{name}, {threads} thread{'s' * (threads > 1)}": every[name] and partial(on, threads, name)
        for threads in (1, 2)
        for name in METHODS
    }
    bases = {"copy": "copy, 1 thread"}
    return interleaved(timers, rounds=rounds, warm_up=2, unit="us", bases=bases)


def plot(rows: list[Row]) -> Any:
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), sharey=False, layout="constrained")
    titles = {
        "batch": f"images of {SIDE_OF_BATCHES} x {SIDE_OF_BATCHES}: batch size",
        "side": f"batches of {BATCH_OF_SIDES}: side in pixels",
    }
    styles = {"1": "-", "2": "--"}
    colours = dict(zip(METHODS, ("grey", "tab:blue", "tab:orange"), strict=True))
    for axis, (grows, title) in zip(axes, titles.items(), strict=True):
        chosen = [row for row in rows if row["grows"] == grows and row["median_us"] is not None]
        for label in dict.fromkeys(row["method"] for row in chosen):
            name, threads = label.rsplit(", ", 1)
            points = [(row[grows], row["median_us"]) for row in chosen if row["method"] == label]
            axis.loglog(
                *zip(*points, strict=True), styles[threads[0]], color=colours[name], label=label,
                marker="o", markersize=3,
            )  # fmt: skip
        ticks = sorted({row[grows] for row in chosen})
        axis.set_xticks(ticks, [str(tick) for tick in ticks])
        axis.minorticks_off()
        axis.set_xlabel(title)
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("microseconds an image")
    axes[0].legend(fontsize=8)
    return figure


if __name__ == "__main__":
    torch.manual_seed(0)
    main()
