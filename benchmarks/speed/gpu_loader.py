"""A whole DALI loader on the GPU, with and without mixup, in images a second.

DALI decodes photographs on the GPU, crops at random, resizes and mirrors; the main thread mixes
what is handed out, as in a training loop. Batches leave as normalised float16 CHW; the two that mix
have dense labels. "decode" is what the decoder alone hands out, at the size of its crops.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import DALIClassificationIterator

from benchmarks.photographs import write_photographs
from dali_mixup import Mixup, MixupClassificationIterator, OutputFormat, image_pipeline
from dali_mixup.cli.measure import Row, card, interleaved, record, show
from dali_mixup.cli.peers import Mix, mixers

SIDE, NUM_CLASSES, THREADS = 224, 1000, 16
MEAN, STD = [123.675, 116.28, 103.53], [58.395, 57.12, 57.375]
PHOTOGRAPHS_A_CLASS, COPIES = 32, 8
UNTIMED_BATCHES, TIMED_IMAGES = 6, 4096

PLAIN = "DALI, normalised"

Batches = Iterator[Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, metavar="PATH", help="record the run here")
    parser.add_argument("--rounds", type=int, default=8)
    arguments = parser.parse_args()

    cores = len(os.sched_getaffinity(0))
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as root:
        write_files(Path(root))
        for batch in (64, 256):
            measured = interleaved(
                {
                    name: None if loader is None else partial(images_a_second, loader, batch)
                    for name, loader in every_loader(root, batch).items()
                },
                rounds=arguments.rounds,
                warm_up=1,
                unit="images_per_s",
                bases={"plain_dali": PLAIN},
            )
            work = f"{batch}x{SIDE}x{SIDE}x3, {THREADS} DALI threads"
            show(f"{work}, {cores} cores", measured)
            rows += [{"work": work} | row for row in measured]
    if arguments.json:
        packages = ("numpy", "torch", "cupy-cuda13x", "nvidia-dali-cuda130", "timm")
        record(arguments.json, cores=cores, packages=packages, rows=rows, **card())


def write_files(root: Path) -> None:
    """Photographs, each under several names: more files than a batch or a queue holds."""
    write_photographs(root, per_class=PHOTOGRAPHS_A_CLASS)
    for photograph in sorted(root.glob("*/*.jpg")):
        for copy in range(1, COPIES):
            shutil.copy(photograph, photograph.with_stem(f"{photograph.stem}_{copy}"))


def every_loader(root: str, batch: int) -> dict[str, Batches | None]:
    options = {"batch_size": batch, "num_threads": THREADS, "device_id": 0}
    output = OutputFormat(dtype="float16", layout="CHW", mean=MEAN, std=STD)
    mixup = Mixup(num_classes=NUM_CLASSES, alpha=1.0, output=output)
    timm = mixers(NUM_CLASSES)["timm batch"]
    return {
        PLAIN: DALIClassificationIterator(normalised_in_dali(root, **options)),
        "DALI + timm batch": timm and mixed_afterwards(timm, normalised_in_dali(root, **options)),
        "dali-mixup": MixupClassificationIterator(
            image_pipeline(root, batch, SIDE, device="gpu", num_threads=THREADS), mixup=mixup
        ),
        "decode": decoded(decoding_alone(root, **options)),
    }


def crops(root: str) -> tuple[Any, Any]:
    """As in image_pipeline."""
    encoded, labels = fn.readers.file(file_root=root, random_shuffle=True)
    images = fn.decoders.image_random_crop(
        encoded,
        device="mixed",
        output_type=types.RGB,
        random_area=[0.08, 1.0],
        random_aspect_ratio=[3 / 4, 4 / 3],
        num_attempts=100,
    )
    return images, labels


@pipeline_def(seed=0)
def normalised_in_dali(root: str) -> Any:
    images, labels = crops(root)
    images = fn.resize(images, size=(SIDE, SIDE), antialias=True)
    images = fn.crop_mirror_normalize(
        images,
        dtype=types.FLOAT16,
        output_layout="CHW",
        mean=MEAN,
        std=STD,
        mirror=fn.random.coin_flip(probability=0.5),
    )
    return images, labels


@pipeline_def(seed=0)
def decoding_alone(root: str) -> Any:
    return crops(root)


def decoded(pipeline: Any) -> Batches:
    pipeline.build()
    while True:
        yield pipeline.run()


def mixed_afterwards(mix: Mix, pipeline: Any) -> Batches:
    for [batch] in DALIClassificationIterator(pipeline):
        labels = batch["label"].squeeze(1).long()
        yield mix(batch["data"], labels.to(batch["data"].device, non_blocking=True))


def images_a_second(batches: Batches, batch: int) -> float:
    """Timed once the prefetched batches, its own and the previous loader's, are out of the way."""
    for _ in range(UNTIMED_BATCHES):
        next(batches)
    torch.cuda.synchronize()
    start = perf_counter()
    for _ in range(TIMED_IMAGES // batch):
        next(batches)
    torch.cuda.synchronize()
    return TIMED_IMAGES / (perf_counter() - start)


if __name__ == "__main__":
    main()
