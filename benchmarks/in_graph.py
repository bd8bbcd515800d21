"""Mixup inside DALI's graph, for comparison: in DALI's own operators, or in Python.

    python benchmarks/in_graph.py

counts what such a graph mixes into the last batch of an epoch. DALI trims that batch (PARTIAL)
behind the graph, so that a partner drawn inside may be a sample that nobody gets.
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

FILES, BATCH, EPOCHS = 8, 3, 300
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
def small_images(root: str, mix: Any = None) -> Any:
    encoded, labels = fn.readers.file(file_root=root, name="Reader", pad_last_batch=True)
    images = fn.cast(fn.decoders.image(encoded, device="cpu"), dtype=types.FLOAT)
    return (images, labels) if mix is None else mix(images, labels, num_classes=2)


def strangers(partners_of_batches: Any) -> tuple[int, int]:
    """Samples of short batches, and those among them whose partner was not handed out."""
    short = [partners for partners in partners_of_batches if len(partners) < BATCH]
    return sum(map(len, short)), sum(int((p >= len(p)).sum()) for p in short)


def partners_in_graph(root: str, mix: Any) -> Any:
    loader = DALIGenericIterator(
        small_images(root, mix=mix, seed=0),
        ["data", "label", "partner"],
        reader_name="Reader",
        last_batch_policy=LastBatchPolicy.PARTIAL,
        auto_reset=True,
    )
    for _ in range(EPOCHS):
        for [batch] in loader:
            yield batch["partner"].numpy().reshape(-1)


def partners_behind_it(root: str) -> Any:
    loader = MixupGenericIterator(
        small_images(root),
        ["data", "label"],
        reader_name="Reader",
        last_batch_policy=LastBatchPolicy.PARTIAL,
        auto_reset=True,
        mixup=Mixup(num_classes=2, alpha=1.0),
        plan_key="plan",
    )
    for _ in range(EPOCHS):
        for [batch] in loader:
            yield batch["plan"].partner


def main() -> None:
    with tempfile.TemporaryDirectory() as root:
        for index in range(FILES):
            path = Path(root) / f"class_{index % 2}" / f"{index}.png"
            path.parent.mkdir(exist_ok=True)
            Image.fromarray(np.full((8, 8, 3), 30 * index, np.uint8)).save(path)
        print(
            f"{FILES} files, batches of {BATCH}, PARTIAL, {EPOCHS} epochs: samples of last batches"
        )
        for name, partners in {
            "in the graph, operators": partners_in_graph(root, by_operators),
            "in the graph, python_function": partners_in_graph(root, by_python),
            "dali-mixup": partners_behind_it(root),
        }.items():
            count, lost = strangers(partners)
            print(f"{name:30} {lost} of {count} mixed with a sample that nobody got")


if __name__ == "__main__":
    main()
