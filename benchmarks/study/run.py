"""What mixup does to a model: paired experiments on real images, through the whole DALI path.

    python -m benchmarks.study.run --json study.json --pictures FOLDER
    python -m benchmarks.study.run --quick
    python -m benchmarks.study.run --digits

Every arm is trained with the same seeds, each with its own training images, weights and order, and
compared with its baseline seed by seed. The images are Fashion-MNIST, which the Debian package
dataset-fashion-mnist installs, or with --digits scikit-learn's, which need nothing.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from benchmarks.study.arms import CURVE, Arm, arms_of, curve
from benchmarks.study.data import (
    FASHION_MNIST,
    NOISES,
    with_replaced_labels,
    write_digits,
    write_fashion,
)
from benchmarks.study.experiment import Data, Run, train
from benchmarks.study.promises import promises
from benchmarks.study.report import draw, summary, table
from dali_mixup.cli.measure import record

MODELS = ("small_resnet", "small_vit")
SEEDS, SEEDS_OF_THE_CURVE, QUICK_SEEDS = 5, 3, 2
TRAIN_SIZE = 2000
IMAGES_TO_SEE = {"small_resnet": 32_000, "small_cnn": 32_000, "small_vit": 56_000}
"""Until a network without mixup fits its training images."""

LEAST_EPOCHS = 6
DIGITS, EPOCHS_OF_DIGITS = 250, 40


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="the main claims alone, 2 seeds")
    parser.add_argument("--digits", action="store_true", help="scikit-learn's digits")
    parser.add_argument("--idx", type=Path, default=FASHION_MNIST, help="Fashion-MNIST's files")
    parser.add_argument("--seeds", type=int)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="these arms alone, by name")
    parser.add_argument("--json", type=Path, metavar="PATH", help="record every run here")
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help="draw the results here")
    flags = parser.parse_args()

    seeds = range(flags.seeds or (QUICK_SEEDS if flags.quick else SEEDS))
    arms = arms_of(quick=flags.quick)
    if flags.arms:
        arms = chosen(arms, flags.arms)
    runs = [Run(arm, model, seed) for seed in seeds for arm in arms for model in flags.models]
    if not (flags.quick or flags.digits or flags.arms):
        runs += of_the_curve(flags.models[0], seeds[:SEEDS_OF_THE_CURVE])
    with tempfile.TemporaryDirectory() as work:
        data = digits(Path(work), seeds) if flags.digits else fashion(Path(work), seeds, flags)
        results = trained(runs, data)
    rows = summary(results)
    print(table(rows))
    if flags.json:
        record(
            flags.json,
            cores=len(os.sched_getaffinity(0)),
            packages=(
                "numpy", "torch", "nvidia-dali-cuda120", "scikit-learn", "torchmetrics", "timm",
            ),
            rows=[*rows, *promises(rows), *({"run": result} for result in results)],
        )  # fmt: skip
    if flags.pictures:
        draw(flags.pictures, results, rows)


def chosen(arms: list[Arm], names: list[str]) -> list[Arm]:
    """The arms of these names; their baselines have to be among them."""
    found = [arm for arm in arms if arm.name in names]
    missing = {*names} - {arm.name for arm in found} or {
        arm.against for arm in found if arm.against not in (None, *names)
    }
    if missing:
        known = ", ".join(repr(arm.name) for arm in arms)
        raise SystemExit(f"--arms: expected {sorted(missing)} among {known}, and baselines given")
    return found


def of_the_curve(model: str, seeds: range) -> list[Run]:
    return [Run(arm, model, seed) for seed in seeds for arm in curve()]


def fashion(work: Path, seeds: range, flags: argparse.Namespace) -> Data:
    sizes = (TRAIN_SIZE,) if flags.quick else (TRAIN_SIZE, *CURVE)
    write_fashion(work, flags.idx, sizes, seeds)
    replace_labels(work, TRAIN_SIZE, seeds)
    return Data(work, TRAIN_SIZE, 28, 50, epochs_for)


def epochs_for(model: str, train_size: int) -> int:
    """As many images for each size, and 6 epochs at least."""
    return max(LEAST_EPOCHS, IMAGES_TO_SEE[model] // train_size)


def digits(work: Path, seeds: range) -> Data:
    write_digits(work, DIGITS, seeds)
    replace_labels(work, DIGITS, seeds)
    return Data(work, DIGITS, 16, 25, epochs_of_digits)


def epochs_of_digits(model: str, train_size: int) -> int:
    return EPOCHS_OF_DIGITS


def replace_labels(work: Path, size: int, seeds: range) -> None:
    for seed in seeds:
        clean = work / f"train-{size}-{seed}"
        for noise in NOISES:
            with_replaced_labels(clean, work / f"{clean.name}-{noise}", noise / 100, seed)


def trained(runs: list[Run], data: Data) -> list[dict[str, Any]]:
    """Every run, in a process for each core."""
    context = multiprocessing.get_context("spawn")
    processes = len(os.sched_getaffinity(0))
    with context.Pool(processes, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        finished = pool.imap(partial(train, data), runs)
        return list(track(finished, f"{len(runs)} runs", total=len(runs)))


if __name__ == "__main__":
    main()
