"""The main job on real photographs: a DALI loader in, mixed tensors and soft labels out.

    python -m benchmarks.demo [--images FOLDER] [--out FOLDER]

Writes a contact sheet and prints images a second with and without mixing.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from dali_mixup import Mixup, MixupClassificationIterator, OutputFormat, image_pipeline
from dali_mixup.cli.contact_sheet import contact_sheet

SIZE = 224
NORMALISED = OutputFormat(
    dtype="float32",
    layout="CHW",
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
)


def draw_sheet(images: Path, names: list[str], path: Path) -> None:
    pipe = image_pipeline(images, 16, SIZE, "cpu", num_threads=2, random_area=(0.5, 1.0))
    pipe.build()
    photos, labels = (output.as_array() for output in pipe.run())
    mixup = Mixup(
        num_classes=len(names),
        alpha=1.0,
        cutmix_alpha=1.0,
        switch_prob=0.4,
        mode="elem",
        pairing="derangement",
        seed=4,
    )
    plan = mixup.plan(16, (SIZE, SIZE))
    mixed, _ = mixup(photos, labels, plan=plan)
    title = "mixup and CutMix: the own label with its weight left, the partner's right"
    contact_sheet(mixed, labels, plan, names, title=title).save(path)
    print(f"{path}: 16 photographs, mixed")


def show_a_batch(images: Path, classes: int) -> None:
    pipe = image_pipeline(images, 16, SIZE, "cpu", num_threads=2)
    loader = MixupClassificationIterator(
        pipe, reader_name="Reader", mixup=Mixup(num_classes=classes, output=NORMALISED)
    )
    batch = next(loader)[0]
    for name, tensor in batch.items():
        print(f"batch[{name!r}]: {tensor.dtype} {tuple(tensor.shape)}")


def images_per_second(images: Path, classes: int) -> dict[str, float]:
    """Of the whole loader, in turns, so that both meet the same machine."""
    mixup = Mixup(num_classes=classes, output=NORMALISED)
    pipe = image_pipeline(images, 32, SIZE, "cpu", num_threads=2, output_layout="CHW")
    loader = MixupClassificationIterator(pipe, reader_name="Reader", auto_reset=True, mixup=mixup)
    seconds = {True: 0.0, False: 0.0}
    seen = {True: 0, False: 0}
    list(loader)  # the first pass starts DALI's threads
    for turn in range(10):
        mixup.enabled = turn % 2 == 0
        start = time.perf_counter()
        for (batch,) in loader:
            seen[mixup.enabled] += len(batch["data"])
        seconds[mixup.enabled] += time.perf_counter() - start
    return {
        "mixed": seen[True] / seconds[True],
        "not mixed": seen[False] / seconds[False],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, help="a folder with one folder of images a class")
    parser.add_argument("--out", type=Path, default=Path("demo"))
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    images = arguments.images
    if images is None:
        from benchmarks.photographs import write_photographs

        images = arguments.out / "photographs"
        write_photographs(images, per_class=24)
    names = sorted(folder.name for folder in images.iterdir() if folder.is_dir())

    draw_sheet(images, names, arguments.out / "contact_sheet.png")
    show_a_batch(images, len(names))
    for what, speed in images_per_second(images, len(names)).items():
        print(f"{what}: {speed:.0f} images/s (decode, augment, normalise; DALI on 2 CPU threads)")


if __name__ == "__main__":
    main()
