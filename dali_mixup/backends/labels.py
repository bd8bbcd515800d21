"""The forms of labels and their smoothing, the same for every backend."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dali_mixup.dtypes import dtype_name, is_float, is_integer


class LabelForm(NamedTuple):
    """Whether labels are class ids or dense rows, and the number of classes if it is known."""

    ids: bool
    num_classes: int | None


def label_form(
    shape: tuple[int, ...], kind: str, batch_size: int, num_classes: int | None
) -> LabelForm:
    """Tell class ids, shape (B,) or (B, 1), from dense rows, shape (B, num_classes).

    Parameters
    ----------
    shape, kind
        Of the labels; `kind` is numpy's: "i", "u", "b" or "f".
    batch_size, num_classes
        What they have to agree with; None: any number of classes.

    Raises
    ------
    TypeError
        Class ids that are not integers.
    ValueError
        A length or a width that does not agree.
    """
    if not shape or shape[0] != batch_size:
        raise ValueError(f"labels: expected {batch_size} rows, one an image, got shape {shape}")
    if len(shape) > 2:
        raise ValueError(
            f"labels: expected class ids (B,) or (B, 1), or dense (B, num_classes), got {shape}; "
            "name masks by mask_key"
        )
    if kind not in "iufb":
        raise TypeError(f"labels: expected integers, floats or bools, got kind {kind!r}")
    if len(shape) == 2 and (shape[1] != 1 or kind not in "iu"):
        if shape[1] != (num_classes or shape[1]):
            raise ValueError(
                f"labels: expected dense rows of {num_classes} classes, or integer class ids "
                f"(B,) or (B, 1), got shape {shape} of kind {kind!r}"
            )
        return LabelForm(False, shape[1])
    if kind not in "iu":
        raise TypeError(
            f"labels: expected integers as class ids {shape}, got kind {kind!r}; "
            "dense labels have the shape (B, num_classes), and values need num_classes=None"
        )
    return LabelForm(True, num_classes)


class Rows(NamedTuple):
    """Labels as a backend takes them."""

    labels: Any
    num_classes: int
    without_columns: bool
    """They are values of shape (B,), and so are their targets."""


def as_rows(labels: Any, num_classes: int | None) -> Rows:
    """Labels beside this number of classes; None: values or dense rows, which are not smoothed.

    Raises
    ------
    ValueError
        `num_classes` is None and `labels` are class ids, which do not tell it.
    """
    if num_classes is not None:
        return Rows(labels, num_classes, False)
    shape = tuple(labels.shape)
    if len(shape) == 1 and is_float(labels):
        return Rows(labels[:, None], 1, True)
    if len(shape) > 2:
        raise ValueError(
            f"labels: expected dense labels (B, num_classes), or values (B,) or (B, D), got {shape}"
            "; name masks by mask_key"
        )
    if len(shape) != 2 or (shape[1] == 1 and not is_float(labels)):
        raise ValueError(
            f"num_classes: expected an int beside class ids, got None and {dtype_name(labels)} "
            f"labels of shape {shape}; pass num_classes, or dense labels (B, num_classes), or "
            "values as floats (B,) or (B, D), or in a loader label_key=() where there are none"
        )
    return Rows(labels, int(shape[1]), False)


def is_ignored(labels: Any, ignore_index: int) -> NDArray[np.bool_]:
    """Which class ids are `ignore_index`, shape (B,); labels on a GPU are waited for.

    Raises
    ------
    TypeError
        `labels` are no class ids.
    """
    shape = tuple(labels.shape)
    if not is_integer(labels) or len(shape) not in (1, 2) or shape[1:] not in ((), (1,)):
        raise TypeError(
            f"labels: expected class ids (B,) or (B, 1) beside ignore_index={ignore_index}, got "
            f"{labels.dtype} {shape}"
        )
    ids = labels if isinstance(labels, np.ndarray) else labels.detach().cpu().numpy()
    return ids.reshape(-1) == ignore_index  # type: ignore[no-any-return]


def without_ignored(labels: Any, ignore_index: int) -> Any:
    """Class ids with 0 in the place of `ignore_index`."""
    if isinstance(labels, np.ndarray):
        return np.where(labels == ignore_index, labels.dtype.type(0), labels)
    return labels.long().masked_fill(labels == ignore_index, 0)  # torch fills no uint16


def class_ids(labels: NDArray[Any], num_classes: int) -> NDArray[np.int64]:
    """Class ids as int64, shape (B,); ValueError names the first that is out of range."""
    ids = labels.reshape(-1)
    bad = ids.astype(np.uint64) >= num_classes  # negative ones too, which are large as unsigned
    if bad.any():
        row = int(bad.argmax())
        raise bad_label(row, int(ids[row]), num_classes)
    return ids.astype(np.int64)


def no_pairs(shape: tuple[int, ...]) -> TypeError:
    """The error for dense labels where two indices are wanted."""
    return TypeError(
        f"labels: expected class ids for targets='pairs', got dense labels {shape}; "
        "use targets='soft'"
    )


def bad_label(row: int, label: int, num_classes: int, *, earlier: bool = False) -> ValueError:
    """The error for a class id outside the range, in this batch or an `earlier` one."""
    where = " of an earlier batch, whose target is NaN" if earlier else ""
    return ValueError(
        f"labels: expected class ids in [0, {num_classes}), got {label} at row {row}{where}; "
        f"num_classes is {num_classes}"
    )


@lru_cache
def smoothing(label_smoothing: float, num_classes: int) -> tuple[np.float32, np.float32]:
    """``keep = 1 - s`` and ``off = s / num_classes``; a smoothed label is ``keep * y + off``."""
    return np.float32(1 - label_smoothing), np.float32(label_smoothing / num_classes)
