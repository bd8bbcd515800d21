"""Mixup inside DALI's graph, for comparison: in DALI's own operators, or in Python.

    python -m benchmarks.speed.in_graph

counts what such a graph mixes into the last batch of an epoch. DALI fills that batch with images of
the next epoch (or, padded, with copies of the last) and trims it behind the graph (PARTIAL), so
that a partner that is drawn inside may be an image that is not handed out with it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.base_iterator import LastBatchPolicy
from nvidia.dali.plugin.pytorch import DALIGenericIterator
from PIL import Image

from dali_mixup import Mixup, MixupGenericIterator

FILES, BATCH, EPOCHS, GREYS = 8, 3, 300, 30
EPOCH = {
    "reader_name": "Reader",
    "last_batch_policy": LastBatchPolicy.PARTIAL,
    "auto_reset": True,
}
Samples = Sequence[np.ndarray]


def by_operators(images: Any, labels: Any, num_classes: int) -> tuple[Any, Any, Any]:
    """Images, soft labels and partners: one lam a sample, as ``mode="elem"``."""
    lam, partner = fn.random.beta(alpha=1.0, beta=1.0), fn.batch_permutation()
    soft = fn.one_hot(labels, num_classes=num_classes)
    mixed, target = (
        lam * own + (1.0 - lam) * fn.permute_batch(own, indices=partner) for own in (images, soft)
    )
    return mixed, target, partner


def by_python(images: Any, labels: Any, num_classes: int) -> tuple[Any, Any, Any]:
    """The same in ``fn.python_function``; one lam a batch."""
    mixup = _PythonMixup(num_classes)
    return tuple(
        fn.python_function(images, labels, function=mixup, num_outputs=3, batch_processing=True)
    )


class _PythonMixup:
    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.rng = np.random.default_rng(0)

    def __call__(self, images: Samples, labels: Samples) -> tuple[Any, Any, Any]:
        lam, partner = self.rng.beta(1.0, 1.0), self.rng.permutation(len(images))
        soft = np.eye(self.num_classes, dtype=np.float32)[np.concatenate(labels)]
        lam = np.float32(lam)
        mixed = [lam * own + (1 - lam) * images[partner[i]] for i, own in enumerate(images)]
        target = lam * soft + (1 - lam) * soft[partner]
        return mixed, list(target), list(partner.astype(np.int32)[:, None])


@pipeline_def(batch_size=BATCH, num_threads=1, device_id=None)
def numbered_images(root: str, mix: Any = None) -> Any:
    """Images and labels, and the number of each image; mixed, and the number of each partner."""
    encoded, labels = fn.readers.file(file_root=root, name="Reader")
    images = fn.cast(fn.decoders.image(encoded, device="cpu"), dtype=types.FLOAT)
    numbers = fn.cast(images[0, 0, 0] / GREYS, dtype=types.INT32)
    if mix is None:
        return images, numbers, labels
    mixed, target, partner = mix(images, labels, num_classes=2)
    partner = fn.reshape(partner, shape=[])
    return mixed, numbers, fn.permute_batch(numbers, indices=partner), target


def strangers(batches: Any) -> tuple[int, int]:
    """Samples of short batches, and those among them whose partner was not handed out."""
    short = [(own, partners) for own, partners in batches if len(own) < BATCH]
    return (
        sum(len(own) for own, _ in short),
        sum(int((~np.isin(partners, own)).sum()) for own, partners in short),
    )


def mixed_in_graph(root: str, mix: Any) -> Any:
    """The numbers of what is handed out, and of the partners, batch after batch."""
    loader = DALIGenericIterator(
        numbered_images(root, mix=mix, seed=0), ["data", "number", "partner", "label"], **EPOCH
    )
    for _ in range(EPOCHS):
        for [batch] in loader:
            yield tuple(batch[name].numpy().reshape(-1) for name in ("number", "partner"))


def mixed_behind_it(root: str) -> Any:
    loader = MixupGenericIterator(
        numbered_images(root), ["data", "number", "label"], **EPOCH,
        mixup=Mixup(num_classes=2, alpha=1.0), plan_key="plan",
    )  # fmt: skip
    for _ in range(EPOCHS):
        for [batch] in loader:
            numbers = batch["number"].numpy().reshape(-1)
            yield numbers, numbers[batch["plan"].partner]


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        for index in range(FILES):
            path = Path(root) / f"class_{index % 2}" / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), GREYS * index, np.uint8)).save(path)
        print(f"{FILES} files, batches of {BATCH}, PARTIAL, {EPOCHS} epochs: in the last batches")
        for name, batches in {
            "in the graph, operators": mixed_in_graph(root, by_operators),
            "in the graph, python_function": mixed_in_graph(root, by_python),
            "dali-mixup": mixed_behind_it(root),
        }.items():
            count, lost = strangers(batches)
            print(f"{name:30} {lost} of {count} mixed with an image that was not handed out")


if __name__ == "__main__":
    main()
