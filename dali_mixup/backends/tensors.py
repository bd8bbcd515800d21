"""What torch says of its tensors, in this package's words."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import torch

from dali_mixup.output import OutputFormat


def dtype_name(tensor: torch.Tensor) -> str:
    """ "uint8", "float32", ..."""
    return str(tensor.dtype).removeprefix("torch.")


def is_channels_last(images: torch.Tensor, layout: str) -> bool:
    """Whether images of shape (B, C, H, W) lie in memory as HWC and not as CHW."""
    return (
        layout == "CHW"
        and images.ndim == 4
        and images.is_contiguous(memory_format=torch.channels_last)
        and not images.is_contiguous()
    )


@lru_cache
def keep_channels_last(output: OutputFormat) -> OutputFormat:
    """The output of images that lie so, where nothing else is asked for."""
    return output if output.layout else replace(output, channels_last=True)


def require_no_grad(tensor: torch.Tensor, name: str) -> None:
    """Raise TypeError for a tensor that wants a gradient: mixing has none."""
    if tensor.requires_grad:
        raise TypeError(f"{name}: expected a tensor without requires_grad; give {name}.detach()")
