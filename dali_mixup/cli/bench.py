"""A batch and a loader, timed beside a copy, torch's own expression and other libraries."""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch.nn.functional import one_hot

from dali_mixup.cli.peers import Mix, mixers
from dali_mixup.mixup import Mixup
from dali_mixup.output import OutputFormat

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)

Method = Callable[[], object]
Prepare = Callable[[torch.Tensor], torch.Tensor]


class Work(NamedTuple):
    """One kind of batch: uint8 HWC is normalised to `dtype` CHW on the way, floats keep theirs."""

    batch_size: int = 64
    image_size: int = 224
    num_classes: int = 1000
    from_uint8: bool = True
    dtype: str = "float32"
    device: str = "cpu"

    @property
    def title(self) -> str:
        size = f"{self.batch_size} x {self.image_size} x {self.image_size} x 3"
        source = "uint8 HWC -> normalised" if self.from_uint8 else f"{self.dtype} CHW ->"
        return f"{size}, {source} {self.dtype} CHW + {self.num_classes} soft labels, {self.device}"

    @property
    def output(self) -> OutputFormat | None:
        if self.from_uint8:
            return OutputFormat(dtype=self.dtype, layout="CHW", mean=MEAN, std=STD)
        return None

    @property
    def mixup(self) -> Mixup:
        layout = "HWC" if self.from_uint8 else "CHW"
        return Mixup(num_classes=self.num_classes, alpha=1.0, output=self.output, layout=layout)

    @property
    def output_shape(self) -> tuple[int, int, int, int]:
        return self.batch_size, 3, self.image_size, self.image_size

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Random pixels and class ids."""
        labels = torch.randint(self.num_classes, (self.batch_size,), device=self.device)
        if self.from_uint8:
            shape = (self.batch_size, self.image_size, self.image_size, 3)
            return torch.randint(256, shape, dtype=torch.uint8, device=self.device), labels
        dtype = getattr(torch, self.dtype)
        return torch.rand(self.output_shape, dtype=dtype, device=self.device), labels

    def preparation(self) -> Prepare:
        """What others need before they mix, as timm's loader does it: normalised, CHW."""
        if not self.from_uint8:
            return lambda images: images
        dtype = getattr(torch, self.dtype)
        mean, std = (
            torch.tensor(values, dtype=dtype, device=self.device).view(3, 1, 1)
            for values in (MEAN, STD)
        )
        return lambda images: images.permute(0, 3, 1, 2).contiguous().to(dtype).sub_(mean).div_(std)


def methods(work: Work) -> dict[str, Method | None]:
    """Calls that each return one mixed batch; None for what is not installed or takes no such."""
    images, labels = work.batch()
    prepare = work.preparation()
    peers = mixers(work.num_classes)
    if work.batch_size % 2:
        peers |= {"timm batch": None, "timm elem": None}  # which assert an even batch
    return {
        "copy": copy_of_the_output(work),
        "dali-mixup": partial(work.mixup, images, labels),
        "dali-mixup elem": partial(replace(work.mixup, mode="elem"), images, labels),
        **{
            name: mix
            and mixed_by(mix, prepare, images.clone(), labels)  # timm writes into its input
            for name, mix in peers.items()
        },
        "torch eager": with_draws(written_out(work), images, labels),
    }


def copy_of_the_output(work: Work) -> Method:
    source = torch.ones(work.output_shape, dtype=getattr(torch, work.dtype), device=work.device)
    return partial(source.clone().copy_, source)


def mixed_by(mix: Mix, prepare: Prepare, images: torch.Tensor, labels: torch.Tensor) -> Method:
    return lambda: mix(prepare(images), labels)


def written_out(work: Work) -> Callable[..., object]:
    """Mixup as one writes it in torch, of images, labels, partners and lam."""
    prepare = work.preparation()

    def mix(
        images: torch.Tensor, labels: torch.Tensor, partner: torch.Tensor, lam: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        images, soft = prepare(images), one_hot(labels, work.num_classes).float()
        weight = lam.to(images.dtype)
        return torch.lerp(images[partner], images, weight), torch.lerp(soft[partner], soft, lam)

    return mix


def with_draws(mix: Callable[..., object], images: torch.Tensor, labels: torch.Tensor) -> Method:
    device = images.device
    return lambda: mix(
        images,
        labels,
        torch.randperm(len(images), device=device),
        torch.tensor(random.betavariate(1, 1), device=device),
    )


def microseconds_an_image(method: Method, work: Work) -> float:
    """The wall's time, with whatever the GPU still has to do."""
    calls = 1 if work.device == "cpu" else 20
    start = perf_counter()
    for _ in range(calls):
        method()
    if work.device != "cpu":
        torch.cuda.synchronize()
    return (perf_counter() - start) * 1e6 / (calls * work.batch_size)


def loaders(
    folder: str | os.PathLike[str], work: Work, threads: int
) -> dict[str, Callable[[], float]]:
    """Images a second of a whole DALI loader over a folder, mixing and not."""
    from dali_mixup.loaders.dali import MixupClassificationIterator
    from dali_mixup.loaders.pipeline import image_pipeline

    device = "cpu" if work.device == "cpu" else "gpu"
    speeds: dict[str, Callable[[], float]] = {}
    for name, enabled in {"loader, mixed": True, "loader, not mixed": False}.items():
        pipe = image_pipeline(
            folder,
            work.batch_size,
            work.image_size,
            device,
            num_threads=threads,
            output_layout="CHW" if device == "cpu" else "HWC",
        )
        mixup = Mixup(
            num_classes=work.num_classes,
            output=OutputFormat(dtype=work.dtype, layout="CHW", mean=MEAN, std=STD),
        )
        mixup.enabled = enabled
        speeds[name] = partial(images_a_second, MixupClassificationIterator(pipe, mixup=mixup))
    return speeds


def images_a_second(batches: Iterator[Any], untimed: int = 4, timed: int = 8) -> float:
    """The first batches were decoded while another loader was measured; they do not count."""
    for _ in range(untimed):
        next(batches)
    seen = 0
    start = perf_counter()
    for _ in range(timed):
        images = next(batches)[0]["data"]
        seen += len(images)
    if images.is_cuda:
        torch.cuda.synchronize()
    return seen / (perf_counter() - start)
