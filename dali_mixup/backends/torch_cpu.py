"""The reference on torch's CPU tensors: their memory is viewed as numpy arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dali_mixup.backends import cpu
from dali_mixup.backends.memory import Recycler
from dali_mixup.backends.tensors import as_dense, is_channels_last, keep_channels_last
from dali_mixup.backends.threads import in_a_loader
from dali_mixup.output import BFLOAT16, OutputFormat
from dali_mixup.plan import MixPlan

WORTH_A_THREAD = 1 << 20
"""Values for each thread; with fewer, waking the threads takes longer than they save."""

_memory = Recycler()


def mix(
    images: torch.Tensor,
    labels: torch.Tensor | None,
    plan: MixPlan,
    output: OutputFormat,
    *,
    layout: str,
    **settings: Any,
) -> tuple[torch.Tensor, Any]:
    """:func:`dali_mixup.backends.cpu.mix`, with tensors in and out.

    `images` are what :func:`dali_mixup.backends.inputs.as_images` returned.
    """
    mixed, target = cpu.mix(
        _view(images),
        None if labels is None else _as_numpy(labels, "labels"),
        plan,
        keep_channels_last(output) if is_channels_last(images, layout) else output,
        layout=layout,
        empty=_memory.empty,
        workers=_workers(images),
        **settings,
    )
    return as_tensor(mixed), _as_tensors(target)


def mix_labels(
    images: torch.Tensor, labels: torch.Tensor, plan: MixPlan, **settings: Any
) -> torch.Tensor | tuple[torch.Tensor, ...]:
    """:func:`dali_mixup.backends.cpu.mix_labels`, with tensors in and out."""
    target = cpu.mix_labels(
        _as_numpy(images, "images"), _as_numpy(labels, "labels"), plan, empty=_memory.empty,
        **settings,
    )  # fmt: skip
    return _as_tensors(target)  # type: ignore[no-any-return]


def mix_masks(masks: torch.Tensor, plan: MixPlan) -> torch.Tensor:
    """:func:`dali_mixup.backends.cpu.mix_masks`, with tensors in and out."""
    return as_tensor(cpu.mix_masks(_as_numpy(masks, "masks"), plan, _memory.empty))


def _as_numpy(tensor: torch.Tensor, name: str) -> NDArray[Any]:
    if not isinstance(tensor, torch.Tensor) or tensor.device.type != "cpu":
        got = f"{tensor.device}" if isinstance(tensor, torch.Tensor) else type(tensor).__name__
        raise TypeError(f"{name}: expected a torch tensor on the CPU, got {got}")
    return _view(as_dense(tensor, name))


def _view(tensor: torch.Tensor) -> NDArray[Any]:
    """An array over the memory of a tensor."""
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(BFLOAT16)
    return tensor.numpy()


def as_tensor(array: NDArray[Any]) -> torch.Tensor:
    """A tensor over the memory of an array."""
    if array.dtype == BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def _workers(images: torch.Tensor) -> int:
    """Threads that mix: as many as torch has, and one in a loader."""
    if in_a_loader.get():
        return 1
    return max(1, min(torch.get_num_threads(), images.numel() // WORTH_A_THREAD))


def _as_tensors(target: Any) -> Any:
    """Soft rows, a tuple of three, or None."""
    if isinstance(target, tuple):
        return tuple(map(as_tensor, target))
    return None if target is None else as_tensor(target)
