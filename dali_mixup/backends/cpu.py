"""Mixup of numpy arrays on a CPU: by compiled loops where numba is installed, else by numpy."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from importlib import import_module
from typing import Any

import numpy as np

from dali_mixup.advice import advise_compiling
from dali_mixup.backends import reference
from dali_mixup.backends.arrays import Array, Float32Array, in_order, prepare, prepare_labels
from dali_mixup.backends.reference import label_pairs, mix_masks
from dali_mixup.output import OutputFormat
from dali_mixup.plan import MixPlan

__all__ = ["blend", "label_pairs", "mix", "mix_labels", "mix_masks", "soft_labels"]


def blend(
    images: Array,
    plan: MixPlan,
    output: OutputFormat | None = None,
    *,
    layout: str = "CHW",
    out: Array | None = None,
    empty: Callable[..., Array] = np.empty,
    workers: int = 1,
) -> Array:
    """:func:`dali_mixup.backends.reference.blend`, with the same bits.

    Parameters
    ----------
    images, plan, output, layout, out
        As for the reference.
    empty : callable
        Allocates the result where `out` is None.
    workers : int
        The number of threads; the reference works in one.
    """
    images, form, out = prepare(images, plan, output, layout, out, empty)
    compiled, obstacle = compiled_loops()
    if compiled is not None:
        obstacle = compiled.obstacle(form)
    if obstacle:
        advise_compiling(obstacle, images.size, stacklevel=2)
        reference.mix_into(out, images, plan, form)
        return out
    ordered = in_order(out, form.out_layout, form.memory_layout)
    memory = ordered
    if not (ordered.flags.c_contiguous and ordered.dtype.isnative):
        memory = np.empty(ordered.shape, ordered.dtype.newbyteorder("="))
    compiled.mix_into(memory, images, plan, form, workers)
    if memory is not ordered:
        np.copyto(ordered, memory)
    return out


def soft_labels(
    labels: Array,
    plan: MixPlan,
    num_classes: int | None = None,
    label_smoothing: float = 0.0,
    out: Float32Array | None = None,
    empty: Callable[..., Array] = np.empty,
) -> Float32Array:
    """:func:`dali_mixup.backends.reference.soft_labels`, with the same bits.

    `empty` allocates the result where `out` is None.
    """
    labels, are_ids, out = prepare_labels(labels, plan, num_classes, out, empty)
    compiled, _ = compiled_loops()
    if compiled is not None and are_ids and out.flags.c_contiguous and out.dtype.isnative:
        compiled.mix_ids_into(out, labels, plan, label_smoothing)
    else:
        reference.mix_labels_into(out, labels, plan, are_ids, label_smoothing)
    return out


@lru_cache
def compiled_loops() -> tuple[Any, str]:
    """:mod:`dali_mixup.backends.compiled`, or None and why it does not load."""
    try:
        return import_module("dali_mixup.backends.compiled"), ""
    except Exception as error:  # a library that does not fit the others raises what it likes
        return None, f"numba does not load ({error})"


def mix(
    images: Array,
    labels: Array | None,
    plan: MixPlan,
    output: OutputFormat,
    *,
    layout: str,
    num_classes: int,
    label_smoothing: float,
    targets: str,
    empty: Callable[..., Array] = np.empty,
    workers: int = 1,
) -> tuple[Array, Any]:
    """Mix images and labels in one call; targets are "soft" or "pairs", or None without labels.

    `empty` allocates the outputs; `workers` is the number of threads.
    """
    mixed = blend(images, plan, output, layout=layout, empty=empty, workers=workers)
    if labels is None:
        return mixed, None
    return mixed, mix_labels(
        images, labels, plan, num_classes=num_classes, label_smoothing=label_smoothing,
        targets=targets, empty=empty,
    )  # fmt: skip


def mix_labels(
    images: Array,
    labels: Array,
    plan: MixPlan,
    *,
    num_classes: int,
    label_smoothing: float,
    targets: str,
    empty: Callable[..., Array] = np.empty,
) -> Any:
    """Mix labels alone, as :func:`mix` does; GPU backends take the device of the images."""
    if targets == "pairs":
        return label_pairs(labels, plan, num_classes)
    return soft_labels(labels, plan, num_classes, label_smoothing, empty=empty)
