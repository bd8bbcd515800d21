"""A whole DALI loader on the CPU, with and without mixup, in images a second.

DALI's threads decode photographs, crop at random, resize and mirror; the main thread mixes what is
handed out, as in a training loop. Batches leave as normalised float32 CHW with dense labels, but
for the first two, which keep class ids, and the second, which keeps DALI's bytes. DALI normalises,
but for the two from uint8.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import DALIClassificationIterator, DALIGenericIterator

from benchmarks.photographs import write_photographs
from benchmarks.speed.in_graph import by_operators, by_python
from dali_mixup import Mixup, MixupClassificationIterator, OutputFormat, image_pipeline
from dali_mixup.cli.measure import interleaved, record, show
from dali_mixup.cli.peers import PEERS, Mix, mixers

BATCH, SIDE, NUM_CLASSES, THREADS = 64, 224, 1000, 2
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
FILES_A_CLASS = 64
UNTIMED, TIMED = 7, 8

PLAIN, DISABLED = "DALI, normalised", "from uint8, disabled"

Batches = Iterator[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, metavar="PATH", help="record the run here")
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as root:
        write_photographs(Path(root), per_class=FILES_A_CLASS)
        rows = interleaved(
            {
                name: None if batches is None else partial(images_a_second, batches)
                for name, batches in every_loader(root).items()
            },
            rounds=arguments.rounds,
            warm_up=1,
            unit="images_per_s",
            bases={"plain_dali": PLAIN, "disabled": DISABLED},
        )
    cores = len(os.sched_getaffinity(0))
    show(f"{BATCH} x {SIDE} x {SIDE} x 3, {THREADS} DALI threads, {cores} cores", rows)
    if arguments.json:
        packages = ("numpy", "numba", "torch", "nvidia-dali-cuda120", *PEERS)
        record(arguments.json, cores=cores, packages=packages, rows=rows)


def every_loader(root: str) -> dict[str, Batches | None]:
    images = partial(
        image_pipeline, root, BATCH, SIDE, "cpu", num_threads=THREADS, output_layout="CHW"
    )
    output = OutputFormat(dtype="float32", layout="CHW", mean=MEAN, std=STD)
    mixup = Mixup(num_classes=NUM_CLASSES, alpha=1.0, output=output)
    disabled = replace(mixup)
    disabled.enabled = False
    return {
        PLAIN: DALIClassificationIterator(normalised_in_dali(root)),
        "DALI, uint8 CHW": DALIClassificationIterator(images()),
        "dali-mixup, class swapped": MixupClassificationIterator(
            normalised_in_dali(root), mixup=replace(mixup, output=None)
        ),
        "dali-mixup from uint8": MixupClassificationIterator(images(), mixup=mixup),
        DISABLED: MixupClassificationIterator(images(), mixup=disabled),
        **{
            f"DALI + {name}": mix and mixed_afterwards(mix, normalised_in_dali(root))
            for name, mix in mixers(NUM_CLASSES).items()
        },
        **{
            f"DALI, in graph by {name}": DALIGenericIterator(
                normalised_in_dali(root, mix=mix), ["data", "label", "partner"]
            )
            for name, mix in {"operators": by_operators, "Python": by_python}.items()
        },
    }


@pipeline_def(batch_size=BATCH, num_threads=THREADS, device_id=None, seed=0)
def normalised_in_dali(root: str, mix: Any = None) -> Any:
    encoded, labels = fn.readers.file(file_root=root, random_shuffle=True)
    images = fn.decoders.image_random_crop(
        encoded,
        device="cpu",
        output_type=types.RGB,
        random_area=[0.08, 1.0],
        random_aspect_ratio=[3 / 4, 4 / 3],
        num_attempts=100,
    )
    images = fn.resize(images, size=(SIDE, SIDE), antialias=True)
    images = fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT,
        output_layout="CHW",
        mean=MEAN,
        std=STD,
        mirror=fn.random.coin_flip(probability=0.5),
    )
    return (images, labels) if mix is None else mix(images, labels, NUM_CLASSES)


def mixed_afterwards(mix: Mix, pipeline: Any) -> Batches:
    for [batch] in DALIClassificationIterator(pipeline):
        yield mix(batch["data"], batch["label"].squeeze(1).long())


def images_a_second(batches: Batches) -> float:
    """Timed once the prefetched batches, its own and the previous loader's, are out of the way."""
    for _ in range(UNTIMED):
        next(batches)
    start = perf_counter()
    for _ in range(TIMED):
        next(batches)
    return TIMED * BATCH / (perf_counter() - start)


if __name__ == "__main__":
    main()
