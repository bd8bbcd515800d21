"""The main job on real photographs: a DALI loader in, mixed tensors and soft labels out.

    python -m benchmarks.demo [--images FOLDER] [--out FOLDER]

Writes a contact sheet and prints images a second with and without mixing. Bad input exits with 2
and a message.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from PIL import Image

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


def image_files(images: Path) -> list[Path]:
    known = Image.registered_extensions()
    return sorted(file for file in images.glob("*/*") if file.suffix.lower() in known)


def is_corrupt(file: Path) -> bool:
    try:
        with Image.open(file) as image:
            image.load()
    except (OSError, SyntaxError):  # Pillow reports a broken PNG as SyntaxError
        return True
    return False


def demonstrate(images: Path | None, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    if images is None:
        from benchmarks.photographs import write_photographs

        images = out / "photographs"
        write_photographs(images, per_class=24)
    if not image_files(images):
        raise ValueError(
            f"images: expected a folder with one folder of images a class, got {images}"
        )
    names = sorted(folder.name for folder in images.iterdir() if folder.is_dir())
    try:
        draw_sheet(images, names, out / "contact_sheet.png")
        show_a_batch(images, len(names))
        for what, speed in images_per_second(images, len(names)).items():
            work = "decode, augment, normalise; DALI on 2 CPU threads"
            print(f"{what}: {speed:.0f} images/s ({work})")
    except RuntimeError as error:
        # DALI does not say which file.
        corrupt = next(filter(is_corrupt, image_files(images)), None)
        if corrupt is None:
            raise
        raise ValueError(f"images: expected images that can be decoded, got {corrupt}") from error


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=Path, help="a folder with one folder of images a class")
    parser.add_argument("--out", type=Path, default=Path("demo"))
    arguments = parser.parse_args()
    try:
        demonstrate(arguments.images, arguments.out)
    except (OSError, ValueError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        raise SystemExit(2) from error


if __name__ == "__main__":
    main()
