"""What is computed at once, and by which mean and standard deviation it is normalised."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from dali_mixup.backends.arrays import Float32Array
from dali_mixup.output import Conversion

Normalization = tuple[Float32Array, Float32Array]
"""``mean`` and ``1 / std``, shaped to broadcast against the values."""


class Piece(NamedTuple):
    """A part of an image of shape ``(planes, values)``."""

    planes: slice
    values: slice
    normalization: Normalization | None

    @property
    def shape(self) -> tuple[int, int]:
        planes, values = self.planes, self.values
        return planes.stop - planes.start, values.stop - values.start


def number_of_planes(form: Conversion) -> int:
    """How many runs of values of one channel an image has; 1 where channels alternate."""
    if form.mean is None or form.memory_layout.endswith("C"):
        return 1
    return form.channels * (form.frames if form.memory_layout == "FCHW" else 1)


@lru_cache(maxsize=16)
def pieces(form: Conversion, at_once: int) -> list[Piece]:
    """An image as one piece, or in parts of its planes where it has more than `at_once` values."""
    planes, values = number_of_planes(form), form.frames * form.channels * form.height * form.width
    size = values // planes
    whole = values <= at_once
    together = planes if whole else 1
    step = max(size, 1) if whole else -(-at_once // form.channels) * form.channels
    parts = []
    for plane in range(0, planes, together):
        for start in range(0, size, step):
            stop = min(start + step, size)
            normalization = None
            if form.mean is not None and form.inverse_std is not None:
                alternate = planes if planes > 1 else stop - start
                mean, inverse_std = (
                    np.tile(np.array(each, np.float32), alternate // form.channels)
                    for each in (form.mean, form.inverse_std)
                )
                if planes > 1:
                    each_plane = slice(plane, plane + together), None
                    mean, inverse_std = mean[each_plane], inverse_std[each_plane]
                normalization = mean, inverse_std
            parts.append(Piece(slice(plane, plane + together), slice(start, stop), normalization))
    return parts
