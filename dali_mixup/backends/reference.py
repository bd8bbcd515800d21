"""The definition of mixup in plain numpy, which is also the reference: other backends equal it.

All arithmetic is float32, each operation rounded once, in the order in which it is written here.
:mod:`dali_mixup.backends.compiled` gives the same bits in a fraction of the time.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from dali_mixup.backends.arrays import (
    Array,
    Float32Array,
    as_array,
    as_float32,
    in_order,
    kind_of,
    prepare,
    prepare_labels,
    store,
)
from dali_mixup.backends.labels import class_ids, label_form, no_pairs, smoothing
from dali_mixup.backends.masks import mask_shape, regions
from dali_mixup.output import Conversion, OutputFormat
from dali_mixup.plan import MixPlan


def blend(
    images: Array,
    plan: MixPlan,
    output: OutputFormat | None = None,
    *,
    layout: str = "CHW",
    out: Array | None = None,
) -> Array:
    """Mix each image with its partner, then normalise, cast and change the layout.

    ``lam * own + (1 - lam) * partner``. Where the plan has a box, the partner's pixels inside it
    and the own pixels outside. Boxes and a ``lam`` of 1 or 0 select, they do not multiply.

    Parameters
    ----------
    images : array, shape (B, C, H, W), (B, H, W, C) or with frames, as `layout` says
        uint8, uint16, float16, float32, or bfloat16 as ``dali_mixup.output.BFLOAT16`` or
        ``ml_dtypes``'s, with any number of channels. Not written to.
    plan : MixPlan
        A plan of B samples. All frames of a clip are mixed alike.
    output : OutputFormat, optional
        None keeps dtype and layout.
    layout : {"CHW", "HWC", "FHWC", "FCHW", "CFHW"}
        The layout of `images`.
    out : array, optional
        The array to write to and return. It has the shape and dtype of the result and shares no
        memory with `images`.

    Returns
    -------
    array, shape (B, C, H, W), (B, H, W, C) or with frames
        With the dtype and layout of `output`. A NaN stays a NaN; its payload is not defined.

    Raises
    ------
    TypeError, ValueError
        Input outside the above. The message says what was expected and what was passed.

    References
    ----------
    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers", ICCV 2019.
    """
    images, form, out = prepare(images, plan, output, layout, out)
    mix_into(out, images, plan, form)
    return out


def mix_into(out: Array, images: Array, plan: MixPlan, form: Conversion) -> None:
    """Mix images of ``form.in_layout`` into an array of ``form.out_shape``."""
    layout = form.in_layout
    own = as_float32(images)
    partner = own[plan.partner]
    lam = _along(plan.lam, "B", layout)
    with np.errstate(all="ignore"):
        mixed = lam * own + (np.float32(1) - lam) * partner
        mixed = np.where(lam == 1, own, np.where(lam == 0, partner, mixed))
        if plan.box is not None:
            y0, y1, x0, x1 = (_along(side, "B", layout) for side in plan.box.T)
            y = _along(np.arange(form.height), "H", layout)
            x = _along(np.arange(form.width), "W", layout)
            inside = (y0 <= y) & (y < y1) & (x0 <= x) & (x < x1)
            mixed = np.where((y0 < y1) & (x0 < x1), np.where(inside, partner, own), mixed)
        if form.mean is not None:
            mean, inverse_std = (
                _along(np.array(values, np.float32), "C", layout)
                for values in (form.mean, form.inverse_std)
            )
            mixed = (mixed - mean) * inverse_std
        store(out, in_order(mixed, layout, form.out_layout))


def _along(values: Array, axis: str, layout: str) -> Array:
    """Values shaped to vary along one axis of a batch in `layout`."""
    return values.reshape([-1 if each == axis else 1 for each in f"B{layout}"])


def soft_labels(
    labels: Array,
    plan: MixPlan,
    num_classes: int | None = None,
    label_smoothing: float = 0.0,
    out: Float32Array | None = None,
) -> Float32Array:
    """Mix each label with its partner's: ``lam * own + (1 - lam) * partner``, both smoothed.

    Parameters
    ----------
    labels : array
        Class ids, integers of shape (B,) or (B, 1) in [0, num_classes), or dense rows (one-hot,
        multi-hot, probabilities) of shape (B, num_classes). Not written to.
    plan : MixPlan
        A plan of B samples.
    num_classes : int, optional
        None: the number of columns of dense rows.
    label_smoothing : float in [0, 1)
        s: a label y in {0, 1} becomes ``(1 - s) * y + s / num_classes``.
    out : float32 array, shape (B, num_classes), optional
        The array to write to and return. It shares no memory with `labels`.

    Returns
    -------
    float32 array, shape (B, num_classes)
        Rows sum to 1 where the rows of `labels` do.

    Raises
    ------
    TypeError, ValueError
        Input outside the above. A class id out of range is named with its row.
    """
    labels, are_ids, out = prepare_labels(labels, plan, num_classes, out)
    mix_labels_into(out, labels, plan, are_ids, label_smoothing)
    return out


def mix_labels_into(
    out: Float32Array, labels: Array, plan: MixPlan, are_ids: bool, label_smoothing: float
) -> None:
    """Mix class ids, or dense rows, into an array of shape (B, num_classes)."""
    num_classes = out.shape[1]
    keep, off = smoothing(label_smoothing, num_classes)
    lam, rest = plan.lam, np.float32(1) - plan.lam
    if are_ids:
        own = class_ids(labels, num_classes)
        partner = own[plan.partner]
        on = keep + off
        own_on, partner_on = lam * on, rest * on
        own_off, partner_off = lam * off, rest * off
        out[:] = (own_off + partner_off)[:, None]
        row = np.arange(len(plan))
        out[row, partner] = own_off + partner_on
        out[row, own] = own_on + np.where(own == partner, partner_on, partner_off)
        return

    smooth = keep * as_float32(labels) + off
    partners = smooth[plan.partner]
    with np.errstate(all="ignore"):
        np.multiply(smooth, lam[:, None], out=out)
        out += rest[:, None] * partners
    out[lam == 1] = smooth[lam == 1]
    out[lam == 0] = partners[lam == 0]


def label_pairs(
    labels: Array, plan: MixPlan, num_classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], Float32Array]:
    """Return both class ids of each sample and the share of the first, for a two-index loss.

    Parameters
    ----------
    labels : array
        Class ids, integers of shape (B,) or (B, 1) in [0, num_classes).
    plan : MixPlan
        A plan of B samples.
    num_classes : int

    Returns
    -------
    own, partner : int64 array, shape (B,)
    lam : float32 array, shape (B,)

    Raises
    ------
    TypeError
        Labels are dense rows, which have no index.
    ValueError
        A class id is out of range. It is named with its row.
    """
    labels = as_array(labels)
    if not label_form(labels.shape, kind_of(labels), len(plan), num_classes).ids:
        raise no_pairs(labels.shape)
    own = class_ids(labels, num_classes)
    return own, own[plan.partner], plan.lam.copy()


def mix_masks(masks: Array, plan: MixPlan, empty: Callable[..., Array] = np.empty) -> Array:
    """Return masks whose pixels come from where the pixels of the images come from.

    Parameters
    ----------
    masks : array, shape (B, H, W), (B, 1, H, W) or (B, H, W, 1)
        Integers of 8 to 64 bits, or bools. Not written to.
    plan : MixPlan
        A plan of B samples, each with a box or a ``lam`` of 0 or 1.
    empty : callable
        Allocates the result.

    Returns
    -------
    array
        With the shape and dtype of `masks`.

    Raises
    ------
    TypeError, ValueError
        Input outside the above.
    """
    batch, height, width = mask_shape(masks.shape, masks.dtype.name, plan)
    own = masks.reshape(batch, height, width)
    mixed = empty(masks.shape, masks.dtype)
    np.copyto(mixed, masks)
    target = mixed.reshape(own.shape)
    for i, region in regions(plan).items():
        target[i][region] = own[plan.partner[i]][region]
    return mixed
