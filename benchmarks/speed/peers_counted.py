"""What other ways to mix a batch move, counted: their launches, and the bytes of their arguments.

timm and torchvision run as they are, on a CPU, and every operator that they call is counted. On a
GPU each is a launch. It reads the tensors that it is given once and writes its results once.
torch.compile is asked for the launches and bytes of the code that it makes.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch._inductor import metrics
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dali_mixup.cli.peers import mixers

BATCH, SIDE, NUM_CLASSES = 8, 224, 1000
MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


class Moved(NamedTuple):
    method: str
    launches: int
    bytes: int  # for BATCH images


class _Operators(TorchDispatchMode):
    """Counts the operators that read or write memory."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.bytes = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = operator(*args, **(kwargs or {}))
        given = {id(t): t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        made = [t for t in tree_leaves(result) if isinstance(t, torch.Tensor)]
        memory = {t.untyped_storage().data_ptr() for t in given.values()}
        in_place = operator._schema.is_mutable
        is_view = not in_place and any(t.untyped_storage().data_ptr() in memory for t in made)
        if made and not is_view and "empty" not in operator.name():
            self.launches += 1
            self.bytes += sum(t.nbytes for t in (*given.values(), *made))
        return result


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (BATCH, SIDE, SIDE, 3), dtype=torch.uint8, generator=generator)
    return images, torch.randint(NUM_CLASSES, (BATCH,), generator=generator)


def of_operators(method: str, call: Callable[[], Any]) -> Moved:
    with _Operators() as operators:
        call()
    return Moved(method, operators.launches, operators.bytes)


def peer(name: str) -> Callable[[], Any]:
    """uint8 HWC images to normalised float16 CHW ones, as timm's loader does it, then mixed."""
    mix = mixers(NUM_CLASSES)[name]
    assert mix is not None, f"{name}: expected to be installed"
    mean, std = (torch.tensor(v, dtype=torch.float16).view(3, 1, 1) for v in (MEAN, STD))
    images, labels = batch()

    def call() -> Any:
        planes = images.permute(0, 3, 1, 2).contiguous()
        return mix(planes.to(torch.float16).sub_(mean).div_(std), labels)

    return call


def of_torch_compile() -> Moved:
    """The arithmetic of the library written in torch, with its draws given."""
    partner, lam = torch.arange(BATCH).roll(1), torch.rand(BATCH)
    classes = torch.arange(NUM_CLASSES)
    mean, inverse_std = torch.tensor([MEAN, [1 / s for s in STD]])

    def expression(images: torch.Tensor, labels: torch.Tensor) -> Any:
        own, rest = lam.view(-1, 1, 1, 1), 1 - lam.view(-1, 1, 1, 1)
        mixed = own * images.float() + rest * images[partner].float()
        mixed = ((mixed - mean) * inverse_std).permute(0, 3, 1, 2)
        rows = (labels[:, None] == classes).float()
        soft = lam[:, None] * rows + (1 - lam[:, None]) * rows[partner]
        return mixed.to(torch.float16, memory_format=torch.contiguous_format), soft

    # torch counts the bytes where these metrics are logged, and of code that it compiles anew.
    log = logging.getLogger("torch._inductor.compile_fx.__inductor_metrics")
    log.setLevel(logging.INFO)
    log.propagate = False
    metrics.reset()
    with (
        warnings.catch_warnings(action="ignore", category=UserWarning),
        torch._inductor.config.patch(force_disable_caches=True),
    ):
        torch.compile(expression, dynamic=False)(*batch())
    return Moved("torch.compile", metrics.generated_kernel_count, metrics.num_bytes_accessed)


def every_peer() -> list[Moved]:
    names = ("timm batch", "timm elem", "torchvision")
    return [*(of_operators(name, peer(name)) for name in names), of_torch_compile()]
