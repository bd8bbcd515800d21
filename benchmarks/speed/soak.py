"""A long run, watched for what grows: memory, open files, threads.

Nine tenths of the batches come from tensors in memory through MixupLoader, under three settings in
turn; the rest from a DALI iterator over small files, made anew from its own state every few epochs.
After the warm-up memory may vary by 1 % and nothing else at all, and the plans that are handed out
have to be those of their place.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from nvidia.dali.plugin.pytorch import LastBatchPolicy
from PIL import Image

from dali_mixup import (
    MixPlan,
    Mixup,
    MixupClassificationIterator,
    MixupLoader,
    OutputFormat,
    dali_checkpoints,
    image_pipeline,
)
from dali_mixup.cli.measure import Row, record

BATCH, SIDE, NUM_CLASSES = 8, 16, 10
FULL_BATCHES, LAST_BATCH = 24, 5
EPOCHS_A_LOADER = 20  # without mixup, too, DALI keeps some 30 KiB of each pipeline made
DALI_SHARE = 0.1

SAMPLES = 50
WARM_UP = 0.2
MEMORY_MAY_VARY = 0.01
CHECK_EVERY = 101

OUTPUT = OutputFormat(dtype="float16", layout="CHW", mean=127.5, std=127.5)
make_mixup = partial(
    Mixup, num_classes=NUM_CLASSES, alpha=1.0, cutmix_alpha=1.0, mode="elem", output=OUTPUT
)
MIXUPS = (
    make_mixup(),
    Mixup(num_classes=NUM_CLASSES, mode="pair", prob=0.5, targets="pairs"),
    Mixup(num_classes=NUM_CLASSES, label_smoothing=0.1, pairing="derangement"),
)


class Delivery(NamedTuple):
    """A batch that was handed out: by which plan, and the one that belongs there."""

    plan: MixPlan
    mixup: Mixup
    epoch: int
    step: int

    def is_of_its_place(self) -> bool:
        size = len(self.plan)
        want = self.mixup.plan(size, (SIDE, SIDE), epoch=self.epoch, step=self.step)
        names = ("partner", "lam", "box")
        return all(np.array_equal(getattr(self.plan, n), getattr(want, n)) for n in names)


class Usage(NamedTuple):
    """What the process holds after so many batches."""

    batches: int
    memory_mib: float
    files: int
    threads: int
    cuda_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batches", type=int, default=200_000)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record the run here")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"

    with tempfile.TemporaryDirectory() as folder:
        write_images(Path(folder))
        from_dali = int(arguments.batches * DALI_SHARE)
        rows = [
            watch("tensors in memory", in_memory(device), arguments.batches - from_dali),
            watch("a DALI iterator", dali_iterator(folder, device), from_dali),
        ]
    for row in rows:
        show(row)
    if arguments.json:
        packages = ("numpy", "numba", "torch", "nvidia-dali-cuda120")
        record(arguments.json, cores=len(os.sched_getaffinity(0)), packages=packages, rows=rows)
    found = [f"{row['part']}: {problem}" for row in rows for problem in row["problems"]]
    sys.exit("\n".join(found) or None)


def write_images(folder: Path) -> None:
    rng = np.random.default_rng(0)
    for i in range(FULL_BATCHES * BATCH + LAST_BATCH):
        path = folder / f"class_{i % NUM_CLASSES}" / f"{i:03d}.jpg"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (24, 32, 3), np.uint8)).save(path)


def in_memory(device: str) -> Iterator[Delivery]:
    """Epochs without end, the last batch of each a smaller one."""
    batches = [
        {
            "image": torch.randint(256, (size, SIDE, SIDE, 3), dtype=torch.uint8, device=device),
            "target": torch.randint(NUM_CLASSES, (size,), device=device),
        }
        for size in [BATCH] * FULL_BATCHES + [LAST_BATCH]
    ]
    loaders = [MixupLoader(batches, mixup, plan_key="plan") for mixup in MIXUPS]
    epoch = 0
    while True:
        for loader, mixup in zip(loaders, MIXUPS, strict=True):
            for step, batch in enumerate(loader):
                yield Delivery(batch["plan"], mixup, epoch, step)
        epoch += 1


def dali_iterator(folder: str, device: str) -> Iterator[Delivery]:
    """Epochs without end, over iterators that go on where the one before stood."""
    epoch, checkpoint = 0, None
    mixup = make_mixup()
    while True:
        loader = MixupClassificationIterator(
            image_pipeline(
                folder, BATCH, SIDE, "gpu" if device == "cuda" else "cpu", num_threads=2,
                enable_checkpointing=True, checkpoint=checkpoint,
            ),
            reader_name="Reader",
            auto_reset=True,
            last_batch_policy=LastBatchPolicy.PARTIAL,
            mixup=mixup,
            plan_key="plan",
        )  # fmt: skip
        for _ in range(EPOCHS_A_LOADER):
            for step, [batch] in enumerate(loader):
                yield Delivery(batch["plan"], mixup, epoch, step)
            epoch += 1
        checkpoint = dali_checkpoints(loader.state_dict())[0]
        del loader, batch


def watch(part: str, deliveries: Iterator[Delivery], batches: int) -> Row:
    """Go through so many batches; report what was held, and what is wrong with that."""
    usages, checked, wrong = [], 0, 0
    start = perf_counter()
    for count in range(1, batches + 1):
        delivery = next(deliveries)
        if count % CHECK_EVERY == 0:
            checked += 1
            wrong += not delivery.is_of_its_place()
        if count * SAMPLES // batches > len(usages):
            usages.append(usage(count))
    problems = growth(usages)
    if wrong:
        problems.append(f"{wrong} of {checked} plans are not those of their place")
    return {
        "part": part,
        "batches": batches,
        "seconds": round(perf_counter() - start, 1),
        "plans_checked": checked,
        "problems": problems,
        "usages": [one._asdict() for one in usages],
    }


def usage(batches: int) -> Usage:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Usage(
        batches,
        round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 2),
        _open_files(),
        len(os.listdir("/proc/self/task")),
        round(torch.cuda.memory_allocated() / 2**20, 2) if torch.cuda.is_initialized() else 0.0,
    )


def _open_files() -> int:
    """Without images: DALI's threads read the next ones at any time, and close them."""
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # closed in the meantime
            found.append(os.readlink(link))
    return sum(not name.endswith(".jpg") for name in found)


def settled(usages: list[Usage]) -> dict[str, tuple[float, float]]:
    """The least and the most of each, after the warm-up."""
    after = usages[int(len(usages) * WARM_UP) :]
    columns = {name: [getattr(one, name) for one in after] for name in Usage._fields[1:]}
    return {name: (min(column), max(column)) for name, column in columns.items()}


def growth(usages: list[Usage]) -> list[str]:
    """What did not stay as it was after the warm-up."""
    problems = []
    for name, (least, most) in settled(usages).items():
        allowed = MEMORY_MAY_VARY if name.endswith("_mib") else 0
        if most > least * (1 + allowed):
            problems.append(f"{name}: expected to stay within {allowed:.0%}, got {least} to {most}")
    return problems


def show(row: dict[str, Any]) -> None:
    usages = [Usage(**values) for values in row["usages"]]
    print(f"\n{row['part']}: {row['batches']} batches in {row['seconds']} s")
    print("".join(f"{name:>14}" for name in Usage._fields))
    for one in usages[:: max(len(usages) // 10, 1)]:
        print("".join(f"{value:14}" for value in one))
    for name, (least, most) in settled(usages).items():
        print(f"{name} after the warm-up: {least} to {most}")
    print(f"{row['plans_checked']} plans checked; {'; '.join(row['problems']) or 'nothing grew'}")


if __name__ == "__main__":
    main()
