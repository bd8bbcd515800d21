"""The reference implementation of mixup, in plain numpy. Other backends equal it in every bit.

All arithmetic is float32, each operation rounded once, in the order in which it is written here.
Large images are processed one at a time, plane by plane where they are stored in planes, and small
ones several at a time. A batch then passes through memory once, and intermediate results stay in
the cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dali_mixup.backends.labels import class_ids, label_form, no_pairs, smoothing
from dali_mixup.backends.masks import mask_shape
from dali_mixup.output import BFLOAT16, Conversion, OutputFormat
from dali_mixup.plan import MixPlan

IN_CACHE = 1 << 18
"""Bytes of float32 pixels that are processed together, where one image has fewer."""

TO_LAYOUT = {"CHW": (0, 3, 1, 2), "HWC": (0, 2, 3, 1)}

Array = NDArray[Any]
Float32Array = NDArray[np.float32]
Factor = Float32Array | np.float32


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
    images = _as_array(images)
    form = (output or OutputFormat()).resolve(images.shape, _dtype_name(images), layout)
    plan.require_fit(form.batch, form.height, form.width)
    out = _output(form) if out is None else _checked_output(out, form, images)
    frames = zip(_frames(images, form.in_layout), _frames(out, form.out_layout), strict=True)
    for own, mixed in frames:
        _blend(own, plan, form.of_a_frame, mixed)
    return out


def _frames(images: Array, layout: str) -> Iterator[Array]:
    """The stills of a batch, or one still of each clip after the other."""
    yield from np.moveaxis(images, 1 + layout.index("F"), 0) if "F" in layout else (images,)


def _blend(images: Array, plan: MixPlan, form: Conversion, out: Array) -> None:
    pieces, piece_shape = _pieces(form, images.shape[1:])
    together = max(1, min(form.batch, IN_CACHE // (4 * math.prod(piece_shape) or 1)))
    scratch = np.empty((2, together, *piece_shape), np.float32)
    target = out if form.out_layout == form.in_layout else out.transpose(TO_LAYOUT[form.in_layout])
    straight = form.out_dtype == "float32" and form.in_layout == form.memory_layout
    if form.mean is not None and form.inverse_std is not None:
        mean, inverse_std = _per_channel(form.mean, form), _per_channel(form.inverse_std, form)

    with np.errstate(all="ignore"):
        for group in _groups(plan, form, together):
            mixed, partner_share = scratch[:, : len(group.partner)]
            for piece in pieces:
                to = target[group.own, piece]
                work = to if straight else mixed
                _mix(images[:, piece], group, work, partner_share)
                if form.mean is not None:
                    np.subtract(work, mean[piece], out=work)
                    np.multiply(work, inverse_std[piece], out=work)
                if not straight:
                    _store(work, to)


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
    labels = _as_array(labels)
    form = label_form(labels.shape, _kind(labels), len(plan), num_classes)
    if form.num_classes is None:
        raise ValueError("num_classes: expected an int beside class ids, got None")
    shape = len(plan), form.num_classes
    if out is None:
        out = np.empty(shape, np.float32)
    elif out.shape != shape or out.dtype != np.float32:
        raise ValueError(f"out: expected float32 {shape}, got {out.dtype} {out.shape}")
    elif np.may_share_memory(out, labels):
        raise ValueError("out: expected memory of its own, got memory that the labels share")

    keep, off = smoothing(label_smoothing, form.num_classes)
    lam, rest = plan.lam, np.float32(1) - plan.lam
    if form.ids:
        own = class_ids(labels, form.num_classes)
        partner = own[plan.partner]
        on = keep + off
        row = np.arange(len(plan))
        out[:] = (lam * off + rest * off)[:, None]
        out[row, own] = lam * on + rest * off
        out[row, partner] = lam * off + rest * on
        same = own == partner
        out[row[same], own[same]] = (lam * on + rest * on)[same]
        return out

    dense = np.empty(shape, np.float32)
    _load(labels, dense)
    smooth = keep * dense + off
    partners = smooth[plan.partner]
    with np.errstate(all="ignore"):
        np.multiply(smooth, lam[:, None], out=out)
        out += rest[:, None] * partners
    out[lam == 1] = smooth[lam == 1]
    out[lam == 0] = partners[lam == 0]
    return out


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
    labels = _as_array(labels)
    if not label_form(labels.shape, _kind(labels), len(plan), num_classes).ids:
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
    for i, region in enumerate(_regions(plan)):
        if region is not None:
            target[i][region] = own[plan.partner[i]][region]
    return mixed


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
) -> tuple[Array, Any]:
    """Mix images and labels in one call; targets are "soft" or "pairs", or None without labels.

    `empty` allocates the outputs.
    """
    images = _as_array(images)
    form = output.resolve(images.shape, _dtype_name(images), layout)
    mixed = blend(images, plan, output, layout=layout, out=_output(form, empty))
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
    soft = empty((len(plan), num_classes), np.float32)
    return soft_labels(labels, plan, num_classes, label_smoothing, out=soft)


def _pieces(form: Conversion, image_shape: tuple[int, ...]) -> tuple[list[slice], tuple[int, ...]]:
    """What is processed at once: an image, or a plane of a large image that is stored in planes."""
    if form.in_layout == "HWC" or 4 * math.prod(image_shape) <= IN_CACHE:
        return [slice(None)], image_shape
    planes = [slice(channel, channel + 1) for channel in range(form.channels)]
    return planes, (1, *image_shape[1:])


class _Group(NamedTuple):
    """Consecutive images, and how they are mixed."""

    own: slice
    partner: NDArray[np.int32]
    lam: Factor
    rest: Factor
    weighed: bool
    unweighed: list[tuple[int, int, tuple[slice, ...]]]
    """Images that are selected, not weighed: index in the group, partner, the partner's region."""


def _groups(plan: MixPlan, form: Conversion, size: int) -> Iterator[_Group]:
    rest = np.float32(1) - plan.lam
    planes = (slice(None),) if form.in_layout == "CHW" else ()
    regions = _regions(plan, planes)
    for first in range(0, len(plan), size):
        own = slice(first, first + size)
        unweighed = [
            (i, int(plan.partner[first + i]), region)
            for i, region in enumerate(regions[own])
            if region is not None
        ]
        weighed = len(unweighed) < len(regions[own])
        yield _Group(
            own, plan.partner[own], _factor(plan.lam[own]), _factor(rest[own]), weighed, unweighed
        )


def _regions(plan: MixPlan, planes: tuple[slice, ...] = ()) -> list[tuple[slice, ...] | None]:
    """The region each image takes unchanged from its partner; None where images are weighed.

    `planes` are those of each image, where it has axes before its rows.
    """
    selected = {1.0: (slice(0),), 0.0: (slice(None),)}  # nothing, everything
    regions: list[tuple[slice, ...] | None] = [selected.get(lam) for lam in plan.lam.tolist()]
    if plan.box is not None:
        for i, (y0, y1, x0, x1) in enumerate(plan.box.tolist()):
            if y0 < y1 and x0 < x1:
                regions[i] = (*planes, slice(y0, y1), slice(x0, x1))
    return regions


def _factor(shares: Float32Array) -> Factor:
    """One share per image, or a scalar where all are equal, which numpy multiplies faster."""
    if len(shares) == 1 or (shares == shares[0]).all():
        return shares[0]  # type: ignore[no-any-return]
    return shares[:, None, None, None]


def _mix(images: Array, group: _Group, out: Float32Array, partner_share: Float32Array) -> None:
    own = images[group.own]
    if group.weighed:
        _weigh(own, group.lam, out)
        _weigh(_gather(images, group.partner), group.rest, partner_share)
        np.add(out, partner_share, out=out)
    else:
        _load(own, out)
    for i, partner, region in group.unweighed:
        if group.weighed:
            _load(own[i], out[i])
        _load(images[partner][region], out[i][region])


def _gather(images: Array, which: NDArray[np.int32]) -> Array:
    """A view of one image, or a copy of several."""
    if len(which) == 1:
        return images[which[0] : which[0] + 1]
    return images[which]


def _weigh(pixels: Array, weight: Factor, out: Float32Array) -> None:
    if pixels.dtype != np.float32:
        _load(pixels, out)
        pixels = out
    np.multiply(pixels, weight, out=out)


def _load(pixels: Array, out: Float32Array) -> None:
    """Pixels as float32, exactly."""
    if pixels.dtype == BFLOAT16:
        bits = out.view(np.uint32)
        np.copyto(bits, pixels["bfloat16"])
        np.left_shift(bits, 16, out=bits)
    else:
        np.copyto(out, pixels, casting="same_kind")


def _store(mixed: Float32Array, out: Array) -> None:
    """Convert float32 to the output's dtype, rounded once, to nearest even; overwrites `mixed`."""
    if out.dtype == BFLOAT16:
        bits = mixed.view(np.uint32)
        nan = np.isnan(mixed)
        bits += np.uint32(0x7FFF) + ((bits >> 16) & 1)
        bits >>= 16
        bits[nan] = 0x7FFF
        np.copyto(out["bfloat16"], bits, casting="unsafe")
    else:
        if out.dtype == np.uint8:
            np.rint(mixed, out=mixed)
        np.copyto(out, mixed, casting="unsafe")


def _per_channel(values: tuple[float, ...], form: Conversion) -> Float32Array:
    """Per-channel values, shaped to broadcast against an image: planes, or rows of pixels."""
    row = np.array(values, np.float32)
    if form.in_layout == "CHW":
        return row[:, None, None]
    return np.tile(row, (form.width, 1))


def _as_array(values: Array) -> Array:
    values = np.asarray(values)
    return values.view(BFLOAT16) if values.dtype.name == "bfloat16" else values


def _kind(labels: Array) -> str:
    return "f" if labels.dtype == BFLOAT16 else labels.dtype.kind


def _dtype_name(images: Array) -> str:
    return "bfloat16" if images.dtype == BFLOAT16 else images.dtype.name


def _numpy_dtype(name: str) -> np.dtype[Any]:
    return BFLOAT16 if name == "bfloat16" else np.dtype(name)


def _output(form: Conversion, empty: Callable[..., Array] = np.empty) -> Array:
    memory = empty(form.memory_shape, _numpy_dtype(form.out_dtype))
    return memory.transpose(0, 3, 1, 2) if form.channels_last else memory


def _checked_output(out: Array, form: Conversion, images: Array) -> Array:
    out = _as_array(out)
    if out.shape != form.out_shape or _dtype_name(out) != form.out_dtype:
        raise ValueError(
            f"out: expected {form.out_dtype} {form.out_shape}, got {_dtype_name(out)} {out.shape}"
        )
    if np.may_share_memory(out, images):
        raise ValueError("out: expected memory of its own, got memory that the images share")
    return out
