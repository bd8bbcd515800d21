"""The design's arithmetic, written as it is said: what every backend has to equal."""

import numpy as np

from dali_mixup.output import BFLOAT16

F = np.float32


def to_bfloat16(values):
    bits = np.asarray(values, np.float32).view(np.uint32).astype(np.uint64)
    nan = np.isnan(values)
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
    return np.where(nan, 0x7FFF, bits).astype(np.uint16).view(BFLOAT16)


def to_float32(values):
    if values.dtype == BFLOAT16:
        return (values["bfloat16"].astype(np.uint32) << 16).view(np.float32)
    return values.astype(np.float32)


def formula(images, plan, output, layout):
    """The design's arithmetic, written as it is said, one sample and one operation at a time."""
    x = to_float32(images)
    x = x if layout == "HWC" else x.transpose(0, 2, 3, 1)
    channels = x.shape[3]
    result = np.empty_like(x)
    with np.errstate(all="ignore"):
        for i, (partner, lam) in enumerate(zip(plan.partner, plan.lam, strict=True)):
            own, other = x[i], x[partner]
            y0, y1, x0, x1 = (0, 0, 0, 0) if plan.box is None else plan.box[i]
            if y0 < y1 and x0 < x1:
                mixed = own.copy()
                mixed[y0:y1, x0:x1] = other[y0:y1, x0:x1]
            elif lam in (0, 1):
                mixed = own if lam == 1 else other
            else:
                mixed = lam * own + (np.float32(1) - lam) * other
            if output.mean is not None or output.std is not None:
                mean = np.broadcast_to(
                    np.float32(0 if output.mean is None else output.mean), channels
                )
                std = np.broadcast_to(np.float32(1 if output.std is None else output.std), channels)
                mixed = (mixed - mean) * (np.float32(1) / std)
            result[i] = mixed
    out_layout = output.layout or ("CHW" if output.channels_last else layout)
    if out_layout == "CHW":
        result = result.transpose(0, 3, 1, 2)
    dtype = output.dtype or ("bfloat16" if images.dtype == BFLOAT16 else images.dtype.name)
    with np.errstate(all="ignore"):
        if dtype == "bfloat16":
            return to_bfloat16(np.ascontiguousarray(result))
        return (np.rint(result) if dtype == "uint8" else result).astype(dtype)


def assert_same_bits(got, want):
    assert got.shape == want.shape
    assert got.dtype == want.dtype
    bits = f"u{want.dtype.itemsize}"
    nan = np.isnan(to_float32(want))
    assert np.isnan(to_float32(got))[nan].all()
    different = (
        np.ascontiguousarray(got).view(bits) != np.ascontiguousarray(want).view(bits)
    ) & ~nan
    assert not different.any(), f"{different.sum()} of {different.size} elements differ"


def soft_label_formula(labels, plan, num_classes, smoothing=0.0):
    """The design's arithmetic on smoothed one-hot or dense rows."""
    keep, off = F(1 - smoothing), F(smoothing / num_classes)
    rows = (
        labels.astype(F)
        if labels.ndim == 2 and labels.shape[1] > 1
        else one_hot(labels, num_classes)
    )
    rows = keep * rows + off
    lam, rest = plan.lam[:, None], F(1) - plan.lam[:, None]
    mixed = lam * rows + rest * rows[plan.partner]
    return np.where(lam == 1, rows, np.where(lam == 0, rows[plan.partner], mixed))


def one_hot(labels, num_classes):
    return (labels.reshape(-1, 1) == np.arange(num_classes)).astype(F)
