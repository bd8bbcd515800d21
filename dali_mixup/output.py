"""The form of mixed images: dtype, layout and normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from dali_mixup.checks import require_choice

DTYPES = ("float32", "float16", "bfloat16", "uint8")
IN_DTYPES = ("uint8", "uint16", "float16", "bfloat16", "float32")
STILLS, CLIPS = ("CHW", "HWC"), ("FHWC", "FCHW", "CFHW")
LAYOUTS = (*STILLS, *CLIPS)
"""The axes of a sample, as DALI names them; F counts frames of a clip or slices of a volume."""

CHANNELS = (1, 3, 4)
"""Those that a layout is inferred from, and that have kernels of their own."""

ELONGATED = 4
"""Images are so many times as elongated in a layout that is not theirs, or more."""

OTHER_UNITS = 100
"""A standard deviation below 1 and one so many times as large are not in the units of bytes."""

BFLOAT16 = np.dtype([("bfloat16", np.uint16)])
"""numpy has no bfloat16: its bits travel under this name, and no uint16 image is taken for it."""


class Conversion(NamedTuple):
    """An :class:`OutputFormat` applied to images of one shape, dtype and layout.

    `mean` and `inverse_std` have one value per channel, each a float32.
    """

    batch: int
    frames: int
    height: int
    width: int
    channels: int
    in_dtype: str
    in_layout: str
    out_dtype: str
    out_layout: str
    channels_last: bool
    mean: tuple[float, ...] | None
    inverse_std: tuple[float, ...] | None

    @property
    def memory_layout(self) -> str:
        """The order of the output's bytes; of stills "CHW" or "HWC"."""
        return "HWC" if self.channels_last else self.out_layout

    @property
    def memory_shape(self) -> tuple[int, ...]:
        return _shape(self, self.memory_layout)

    @property
    def out_shape(self) -> tuple[int, ...]:
        return _shape(self, self.out_layout)

    @property
    def of_a_frame(self) -> Conversion:
        """The same for stills: one frame of each clip."""
        layouts = (layout.replace("F", "") for layout in (self.in_layout, self.out_layout))
        in_layout, out_layout = layouts
        return self._replace(frames=1, in_layout=in_layout, out_layout=out_layout)


@lru_cache
def _shape(form: Conversion, layout: str) -> tuple[int, ...]:
    sides = {"F": form.frames, "C": form.channels, "H": form.height, "W": form.width}
    return form.batch, *(sides[axis] for axis in layout)


@dataclass(frozen=True)
class OutputFormat:
    """The dtype, layout and normalisation of mixed images.

    Parameters
    ----------
    dtype : {"float32", "float16", "bfloat16", "uint8"}, optional
        None keeps the dtype of the input. "uint8" requires uint8 input and neither mean nor std;
        uint16 input requires one of the floats.
    layout : {"CHW", "HWC", "FHWC", "FCHW", "CFHW"}, optional
        None keeps the layout of the input. Layouts with F, the frames, are those of clips and
        volumes.
    mean, std : float or sequence of one float per channel, optional
        ``(mixed - mean) * (1 / std)`` in the units of the incoming pixels: 0 to 255 for uint8, so
        ImageNet's 0.485 is written ``0.485 * 255``; 0 to 65535 for uint16. A missing mean is 0, a
        missing std is 1.
    channels_last : bool
        torch's memory format: shape (B, C, H, W), with the memory in the order of HWC. For stills.

    Raises
    ------
    TypeError, ValueError
        A value is outside the ranges above.
    """

    dtype: str | None = None
    layout: str | None = None
    mean: float | Sequence[float] | None = None
    std: float | Sequence[float] | None = None
    channels_last: bool = False

    def __post_init__(self) -> None:
        require_choice("dtype", self.dtype, DTYPES)
        require_choice("layout", self.layout, LAYOUTS)
        if not isinstance(self.channels_last, bool):
            raise TypeError(f"channels_last: expected True or False, got {self.channels_last!r}")
        if self.channels_last and self.layout not in (None, "CHW"):
            raise ValueError(
                f"channels_last: expected layout 'CHW' or None, got {self.layout!r}; channels_last "
                "has the shape (B, C, H, W) with the bytes of HWC"
            )
        for name in ("mean", "std"):
            object.__setattr__(self, name, _per_channel(name, getattr(self, name)))
        if self.std is not None and not np.all(np.asarray(self.std) > 0):
            raise ValueError(f"std: expected values above 0, got {self.std}")
        if self.dtype == "uint8" and self.normalizes:
            raise ValueError(
                "dtype: expected a float dtype beside mean or std, got 'uint8'; "
                "normalised pixels do not fit into bytes"
            )

    @property
    def normalizes(self) -> bool:
        return self.mean is not None or self.std is not None

    @lru_cache  # noqa: B019 - few formats, each kept for the whole run
    def resolve(self, shape: tuple[int, ...], dtype: str, layout: str) -> Conversion:
        """Apply to images of this shape, dtype and layout.

        Raises
        ------
        TypeError
            `dtype` is none of "uint8", "uint16", "float16", "bfloat16", "float32".
        ValueError
            The shape is not that of a batch of images, or looks like one of another layout; or this
            format does not go with the input.
        """
        if dtype not in IN_DTYPES:
            raise TypeError(f"images: expected {', '.join(IN_DTYPES)}, got {dtype}")
        require_choice("layout", layout, LAYOUTS, optional=False)
        require_batch(shape, layout)
        batch, sides = shape[0], {"F": 1} | dict(zip(layout, shape[1:], strict=True))
        frames, channels, height, width = (sides[axis] for axis in "FCHW")
        if not frames or not channels:
            raise ValueError(
                f"images: expected frames and channels, got shape {shape} read as {layout}"
            )
        _require_plausible(shape, layout)
        out_dtype = self.dtype or dtype
        if out_dtype == "uint16" or (
            out_dtype == "uint8" and (dtype != "uint8" or self.normalizes)
        ):
            given = f"{dtype} images" + (" with mean or std" if self.normalizes else "")
            raise ValueError(
                f"output: expected a float dtype for {given}, got {out_dtype}; "
                "give OutputFormat(dtype='float32', ...)"
            )
        mean = inverse_std = None
        if self.normalizes:
            mean = _broadcast("mean", self.mean, 0.0, channels)
            std = _broadcast("std", self.std, 1.0, channels)
            most = {"uint8": 255, "uint16": 65535}.get(dtype)
            if most and min(std) < 1 and not 1 <= max(std) < OTHER_UNITS * min(std):
                raise ValueError(
                    f"std: expected the units of the pixels, 0 to {most}, got {self.std}; "
                    f"multiply mean and std by {most}"
                )
            inverse_std = tuple(float(np.float32(1) / np.float32(s)) for s in std)
        out_layout = self.layout or ("CHW" if self.channels_last else layout)
        clips = "F" in layout
        if clips != ("F" in out_layout):
            expected = ", ".join(CLIPS if clips else STILLS)
            given = f"channels_last={self.channels_last}, layout={self.layout!r}"
            raise ValueError(
                f"output: expected a layout of {expected} for images in {layout}, got {given}"
            )
        return Conversion(
            batch, frames, height, width, channels, dtype, layout,
            out_dtype, out_layout, self.channels_last, mean, inverse_std,
        )  # fmt: skip


def require_batch(shape: tuple[int, ...], layout: str | None = None) -> None:
    """Raise ValueError unless this is the shape of a batch of images, or of clips."""
    expected = [
        f"(B, {', '.join(each)})" for each in LAYOUTS if layout in (None, each)
    ]  # such as (B, C, H, W)
    if all(len(shape) != 1 + len(each) for each in LAYOUTS if layout in (None, each)):
        raise ValueError(
            f"images: expected shape {' or '.join(expected)}, got {tuple(shape)}; "
            "a batch is one dense array of images of equal size"
        )


def _require_plausible(shape: tuple[int, ...], layout: str) -> None:
    """Raise ValueError where these are surely images of another layout.

    That is where another layout has 1, 3 or 4 channels and this one has not, and images that are
    far less elongated.
    """
    if shape[1 + layout.index("C")] in CHANNELS:
        return
    for other in LAYOUTS:
        alike = len(other) == len(layout) and shape[1 + other.index("C")] in CHANNELS
        if alike and ELONGATED * _elongation(shape, other) <= _elongation(shape, layout):
            raise ValueError(
                f"images: expected {layout}, got shape {tuple(shape)}, which is read as "
                f"{shape[1 + layout.index('C')]} channels and looks like {other}; "
                f"give layout={other!r}"
            )


def _elongation(shape: tuple[int, ...], layout: str) -> float:
    """The longer side of an image divided by the shorter one."""
    short, long = sorted(shape[1 + layout.index(side)] for side in "HW")
    return long / max(short, 1)


@lru_cache
def guess_layout(shape: tuple[int, ...]) -> str:
    """The layout of a batch of this shape; ValueError where several or none are possible."""
    require_batch(shape)
    candidates = [each for each in LAYOUTS if len(each) == len(shape) - 1]
    possible = [each for each in candidates if shape[1 + each.index("C")] in CHANNELS]
    if not possible:
        raise ValueError(
            f"layout: expected one to follow from shape {tuple(shape)}, where no axis has 1, 3 or "
            f"4 channels; give {' or '.join(f'layout={each!r}' for each in candidates)}"
        )
    if len(possible) > 1:
        advice = " or ".join(f"layout={each!r}" for each in possible)
        raise ValueError(
            f"layout: expected one to follow from shape {tuple(shape)}, where several axes could "
            f"be the channels (1, 3 or 4); give {advice}"
        )
    return possible[0]


def _per_channel(name: str, value: Any) -> float | tuple[float, ...] | None:
    if value is None:
        return None
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or array.ndim > 1:
        raise TypeError(f"{name}: expected a number or one number per channel, got {value!r}")
    if not np.isfinite(array).all():
        raise ValueError(f"{name}: expected finite values, got {value!r}")
    array = array + 0.0  # formats that are equal mean the same: no -0.0
    return float(array) if array.ndim == 0 else tuple(float(v) for v in array)


def _broadcast(
    name: str, value: float | Sequence[float] | None, missing: float, channels: int
) -> tuple[float, ...]:
    values = missing if value is None else value
    if not isinstance(values, Sequence):
        values = (values,) * channels
    if len(values) != channels:
        raise ValueError(f"{name}: expected {channels} values for {channels} channels, got {value}")
    return tuple(float(np.float32(v)) for v in values)
