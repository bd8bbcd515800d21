"""Properties of torch tensors in the terms of this package."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch

from dali_mixup.output import OutputFormat


def dtype_name(tensor: torch.Tensor) -> str:
    """ "uint8", "float32", ..."""
    return str(tensor.dtype).removeprefix("torch.")


def is_channels_last(images: torch.Tensor, layout: str) -> bool:
    """Whether images of shape (B, C, H, W) are stored in the order of HWC and not of CHW."""
    return (
        layout == "CHW"
        and images.ndim == 4
        and images.is_contiguous(memory_format=torch.channels_last)
        and not images.is_contiguous()
    )


@lru_cache
def keep_channels_last(output: OutputFormat) -> OutputFormat:
    """The output format for such images: channels_last, unless a layout is given."""
    return output if output.layout else replace(output, channels_last=True)


def require_no_grad(tensor: torch.Tensor, name: str) -> None:
    """Raise TypeError for a tensor that requires a gradient: mixing has none."""
    if tensor.requires_grad:
        raise TypeError(f"{name}: expected a tensor without requires_grad; give {name}.detach()")
