"""Images are mixed in blocks that stay in the processor's cache, with the bits of the reference.

A large image is computed in pieces; small images are computed several at a time. Large images
follow each other along their partners: an image that was just read as a partner is the next one's
own, and still in the cache.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from dali_mixup.backends import pieces
from dali_mixup.backends.arrays import Array, Float32Array, Operations, in_order
from dali_mixup.backends.memory import Recycler
from dali_mixup.backends.regions import Region, regions
from dali_mixup.output import Conversion
from dali_mixup.plan import MixPlan

FEW = 4
"""Of fewer images than these together each is mixed by itself."""

_memory = Recycler(keep=2)


def mix_in_blocks(
    images: Array, plan: MixPlan, form: Conversion, out: Array, operations: Operations
) -> None:
    """Mix images of ``form.in_layout`` into `out`, a contiguous array of ``form.memory_shape``."""
    if not out.size:
        return
    pixels = in_order(images, form.in_layout, form.memory_layout)
    together = operations.at_once // math.prod(out.shape[1:])
    batch = _Batch(pixels, plan, form, out, operations)
    if together < FEW:
        batch.mix_each(along_partners(plan.partner.tolist()))
        return
    batch.arrange()
    region = batch.region_of_all()
    if region is not None:
        batch.select_from_all(region)
        if batch.is_copied:
            return
    batch.mix_groups(together, weighed=region is None)
    if region is None and batch.regions:
        batch.mix_each(list(batch.regions))


def along_partners(partners: Sequence[int]) -> list[int]:
    """All samples, each followed by its partner unless that came before."""
    order, seen = [], [False] * len(partners)
    for sample in range(len(partners)):
        while not seen[sample]:
            seen[sample] = True
            order.append(sample)
            sample = partners[sample]
    return order


class _Batch:
    """Images on their way into `out`, whose axes are in the order of its memory.

    Arrays are those of the operations, beside `array` and `partners`, which are numpy's.
    """

    def __init__(
        self, array: Array, plan: MixPlan, form: Conversion, out: Array, operations: Operations
    ) -> None:
        self.array, self.partners, self.regions = array, plan.partner, regions(plan)
        self.form, self.do = form, operations
        self.load, self.store = operations.loads[form.in_dtype], operations.stores[form.out_dtype]
        self.pixels, self.out = operations.wrap(array), operations.wrap(out)
        self.planes = pieces.number_of_planes(form)
        self.before_rows = (slice(None),) * form.memory_layout.index("H")
        self.is_copied = form.in_dtype == form.out_dtype and form.mean is None
        self.is_float32 = form.in_dtype == "float32"
        self.becomes_float32 = form.out_dtype == "float32"
        self.one_share = bool((plan.lam == plan.lam[0]).all())
        self.lam = operations.wrap(plan.lam.copy())
        self.rest = operations.wrap(np.float32(1) - plan.lam)

    def arrange(self) -> None:
        """Make the pixels contiguous."""
        if not self.array.flags.c_contiguous:
            self.array = _memory.empty(self.array.shape, self.array.dtype)
            arranged = self.do.wrap(self.array)
            self.do.copy(arranged, self.pixels)
            self.pixels = arranged

    def region_of_all(self) -> Region | None:
        """The region that all images take from their partners, if it is the same."""
        regions = list(self.regions.values())
        if len(regions) == len(self.array) and all(region == regions[0] for region in regions):
            return regions[0]
        return None

    def select_from_all(self, region: Region) -> None:
        """Select from all images at once; where nothing else is to be done, write to `out`."""
        own: tuple[Any, ...] = (slice(None), *self.before_rows, *region)
        partners: tuple[Any, ...] = (self.do.wrap(self.partners.copy()), *own[1:])
        to = self.out
        if not self.is_copied:
            to = self.do.wrap(_memory.empty(self.array.shape, self.array.dtype))
        self.do.copy(to, self.pixels)
        to[own] = self.pixels[partners]
        self.pixels = to

    def mix_groups(self, together: int, *, weighed: bool) -> None:
        """Mix several images at once; where they are not `weighed`, convert them alone."""
        pixels, out = self._in_planes(self.pixels), self._in_planes(self.out)
        shape = min(together, len(self.array)), *out.shape[1:]
        mixed, share = map(self.do.wrap, _scratch.two(*shape))
        others = share if self.is_float32 else self.do.wrap(np.empty(shape, self.array.dtype))
        partners = self.do.wrap(self.partners.copy())
        [(*_, normalization)] = self._pieces()
        with np.errstate(all="ignore"):
            for first in range(0, len(self.array), together):
                rows = slice(first, first + together)
                to = out[rows]
                work = to if self.becomes_float32 else mixed[: len(to)]
                if weighed:
                    lam, rest = self._shares(rows)
                    other, product = others[: len(to)], share[: len(to)]
                    self._weigh(pixels[rows], lam, work)
                    self.do.take(pixels, partners[rows], other)
                    self._weigh(other, rest, product)
                    self.do.add(work, product, work)
                else:
                    self.load(work, pixels[rows])
                self._finish(work, normalization, to)

    def mix_each(self, images: Sequence[int]) -> None:
        """Mix images one by one, each in pieces."""
        read = _Reader(self)
        outs = self._in_planes(self.out)
        parts = [
            (at, normalization, *map(self.do.wrap, _scratch.two(*shape)))
            for at, shape, normalization in self._pieces()
        ]
        one_share = self._shares(0) if self.one_share else None
        with np.errstate(all="ignore"):
            for i in images:
                partner, region = int(self.partners[i]), self.regions.get(i)
                own, other = read(i, beside=partner), read(partner, beside=i)
                if region is not None:
                    own = self._select(own, other, region, self.out[i] if self.is_copied else None)
                    if self.is_copied:
                        continue
                (lam, rest), out = one_share or self._shares(i), outs[i]
                for at, normalization, mixed, share in parts:
                    to = out[at]
                    work = to if self.becomes_float32 else mixed
                    if region is None:
                        self._weigh(own[at], lam, work)
                        self._weigh(other[at], rest, share)
                        self.do.add(work, share, work)
                    else:
                        self.load(work, own[at])
                    self._finish(work, normalization, to)

    def _in_planes(self, images: Any) -> Any:
        """Images as ``(len(images), planes, values)``."""
        return images.reshape(len(images), self.planes, -1)

    def _pieces(self) -> Iterator[tuple[Any, tuple[int, int], Any]]:
        """The index of a piece, its shape and its normalisation."""
        parts = pieces.pieces(self.form, self.do.at_once)
        for piece in parts:
            at = (piece.planes, piece.values) if len(parts) > 1 else ...
            normalization = piece.normalization and tuple(map(self.do.wrap, piece.normalization))
            yield at, piece.shape, normalization

    def _shares(self, which: int | slice) -> tuple[Any, Any]:
        """Of the own image and the partner: scalars, which are faster, where there is one share."""
        if isinstance(which, slice) and not self.one_share:
            return self.lam[which, None, None], self.rest[which, None, None]
        at = 0 if isinstance(which, slice) else which
        return self.lam[at, ...], self.rest[at, ...]

    def _select(self, own: Any, other: Any, region: Region, to: Any) -> Any:
        """An image with the region taken from its partner, written to `to` where that is given."""
        shape, at = self.array.shape[1:], (*self.before_rows, *region)
        to = self.do.wrap(np.empty(shape, self.array.dtype)) if to is None else to
        self.do.copy(to, own.reshape(shape))
        to[at] = other.reshape(shape)[at]
        return to.reshape(own.shape)

    def _weigh(self, pixels: Any, share: Any, to: Any) -> None:
        if not self.is_float32:
            self.load(to, pixels)
            pixels = to
        self.do.multiply(pixels, share, to)

    def _finish(self, mixed: Any, normalization: tuple[Any, Any] | None, to: Any) -> None:
        """Normalise and convert, unless `mixed` is `to` and nothing remains to be done."""
        if normalization is not None:
            mean, inverse_std = normalization
            self.do.subtract(mixed, mean, mixed)
            self.do.multiply(mixed, inverse_std, mixed)
        if not self.becomes_float32:
            self.store(to, mixed)


class _Reader:
    """Reads images in the order of the output; of those that it rearranged it keeps the last two.

    ``read(i, beside=j)`` keeps j, if it is there. Images have the shape ``(planes, values)``.
    """

    def __init__(self, batch: _Batch) -> None:
        array = batch.array
        self.pixels, self.copy = batch.pixels, batch.do.copy
        self.in_order = array.flags.c_contiguous
        kept = np.empty((0 if self.in_order else 2, *array.shape[1:]), array.dtype)
        self.kept = batch.do.wrap(kept)
        held = self.pixels if self.in_order else self.kept
        self.in_planes = held.reshape(len(held), batch.planes, -1)
        self.images = [-1, -1]

    def __call__(self, image: int, *, beside: int) -> Any:
        if self.in_order:
            return self.in_planes[image]
        if image not in self.images:
            slot = 1 if self.images[0] == beside else 0
            self.copy(self.kept[slot], self.pixels[image])
            self.images[slot] = image
        return self.in_planes[self.images.index(image)]


class _Scratch(threading.local):
    """float32 memory of a thread, which is kept: new memory costs page faults."""

    def __init__(self) -> None:
        self.arrays: Float32Array = np.empty((2, 0), np.float32)

    def two(self, *shape: int) -> Float32Array:
        """Two arrays of a shape."""
        size = math.prod(shape)
        if self.arrays.shape[1] < size:
            self.arrays = np.empty((2, size), np.float32)
        return self.arrays[:, :size].reshape(2, *shape)


_scratch = _Scratch()
