"""Properties of torch tensors in the terms of this package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import torch

from dali_mixup.output import OutputFormat


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


def as_dense(tensor: torch.Tensor, name: str) -> torch.Tensor:
    """The tensor without its autograd history.

    Raises
    ------
    TypeError
        The tensor is sparse, quantised or nested; or it requires a gradient while gradients are
        enabled, because mixing has none.
    """
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
        kind = "nested" if tensor.is_nested else "quantised" if tensor.is_quantized else "sparse"
        raise TypeError(f"{name}: expected a dense tensor, got a {kind} one; convert it first")
    if not tensor.requires_grad:
        return tensor
    if torch.is_grad_enabled():
        raise TypeError(f"{name}: expected a tensor without requires_grad; give {name}.detach()")
    return tensor.detach()


def outside_of_graphs(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call it outside of ``torch.compile``, with a graph break before and after."""
    if torch.compiler.is_dynamo_compiling():
        return _graph_break(call, *arguments)
    return call(*arguments)


@torch.compiler.disable
def _graph_break(call: Callable[..., Any], *arguments: Any) -> Any:
    return call(*arguments)
