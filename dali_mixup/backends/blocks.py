"""Images are mixed in blocks that stay in the processor's cache, with the bits of the reference.

A large image is computed in pieces; small images are computed several at a time. Large images
follow each other along their partners: an image that was just read as a partner is the next one's
own, and still in the cache.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from dali_mixup.backends import pieces
from dali_mixup.backends.arrays import Array, Convert, Float32Array, copy, in_order
from dali_mixup.backends.memory import Recycler
from dali_mixup.backends.regions import Region, regions
from dali_mixup.backends.threads import run_each, split
from dali_mixup.output import Conversion
from dali_mixup.plan import MixPlan

PER_THREAD = 1 << 20
"""Values that are worth a thread."""

FEW = 4
"""Of fewer images than these together each is mixed by itself."""

_memory = Recycler(keep=2)


def mix_in_blocks(
    images: Array,
    plan: MixPlan,
    form: Conversion,
    out: Array,
    loads: Mapping[str, Convert],
    stores: Mapping[str, Convert],
    threads: int,
) -> None:
    """Mix images of ``form.in_layout`` into `out`, a contiguous array of ``form.memory_shape``."""
    if not out.size:
        return
    pixels = in_order(images, form.in_layout, form.memory_layout)
    load, store = loads.get(form.in_dtype, np.copyto), stores[form.out_dtype]
    batch = _Batch(pixels, plan, form, out, load, store)
    threads = min(threads, out.size // PER_THREAD)
    together = pieces.AT_ONCE // math.prod(out.shape[1:])
    if together < FEW:
        order = along_partners(plan.partner.tolist())
        run_each(partial(_mix_large, batch), split(order, threads))
        return
    batch.arrange(threads)
    region = batch.region_of_all()
    if region is not None:
        batch.select_from_all(region)
        if batch.is_copied:
            return
    groups = [slice(first, first + together) for first in range(0, form.batch, together)]
    run_each(partial(_mix_small, batch, region is None), split(groups, threads))
    if region is None and batch.regions:
        _mix_large(batch, list(batch.regions))


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
    """What the threads share. The axes of `pixels` are in the order of `out`."""

    def __init__(
        self,
        pixels: Array,
        plan: MixPlan,
        form: Conversion,
        out: Array,
        load: Convert,
        store: Convert,
    ) -> None:
        self.pixels, self.form, self.out, self.load, self.store = pixels, form, out, load, store
        self.planes = pieces.number_of_planes(form)
        self.partner, self.lam, self.rest = plan.partner, plan.lam, np.float32(1) - plan.lam
        self.regions = regions(plan)
        self.before_rows = (slice(None),) * form.memory_layout.index("H")
        self.is_copied = form.in_dtype == form.out_dtype and form.mean is None
        self.is_float32 = form.in_dtype == "float32"
        self.becomes_float32 = form.out_dtype == "float32"

    def in_planes(self, images: Array) -> Array:
        """Images as ``(len(images), planes, values)``."""
        return images.reshape(len(images), self.planes, -1)

    def arrange(self, threads: int) -> None:
        """Make the pixels contiguous."""
        if self.pixels.flags.c_contiguous:
            return
        pixels, arranged = self.pixels, _memory.empty(self.pixels.shape, self.pixels.dtype)
        parts = split(range(len(pixels)), threads)
        rows = [slice(part.start, part.stop) for part in parts]
        run_each(lambda part: copy(arranged[part], pixels[part]), rows)
        self.pixels = arranged

    def region_of_all(self) -> Region | None:
        """The region that all images take from their partners, if it is the same."""
        regions = list(self.regions.values())
        if len(regions) == len(self.pixels) and all(region == regions[0] for region in regions):
            return regions[0]
        return None

    def select_from_all(self, region: Region) -> None:
        """Select from all images at once; where nothing else is to be done, write to `out`."""
        own: tuple[Any, ...] = (slice(None), *self.before_rows, *region)
        partners: tuple[Any, ...] = (self.partner, *own[1:])
        pixels = self.pixels
        to = self.out if self.is_copied else _memory.empty(pixels.shape, pixels.dtype)
        np.copyto(to, pixels)
        to[own] = pixels[partners]
        self.pixels = to

    def select(self, own: Array, other: Array, region: Region, to: Array | None) -> Array:
        """An image with the region taken from its partner, written to `to` where that is given."""
        shape, at = self.pixels.shape[1:], (*self.before_rows, *region)
        to = np.empty(shape, own.dtype) if to is None else to
        np.copyto(to, own.reshape(shape))
        to[at] = other.reshape(shape)[at]
        return to.reshape(own.shape)

    def weigh(self, pixels: Array, share: Any, to: Float32Array) -> None:
        if not self.is_float32:
            self.load(to, pixels)
            pixels = to
        np.multiply(pixels, share, to)

    def finish(
        self, mixed: Float32Array, normalization: pieces.Normalization | None, to: Array
    ) -> None:
        """Normalise and convert, unless `mixed` is `to` and nothing remains to be done."""
        if normalization is not None:
            mean, inverse_std = normalization
            np.subtract(mixed, mean, mixed)
            np.multiply(mixed, inverse_std, mixed)
        if not self.becomes_float32:
            self.store(to, mixed)


def _mix_small(batch: _Batch, weighed: bool, groups: Sequence[slice]) -> None:
    """Mix groups of images; where they are not `weighed`, normalise and convert them alone."""
    pixels, out = batch.in_planes(batch.pixels), batch.in_planes(batch.out)
    shape = len(pixels[groups[0]]), *out.shape[1:]
    mixed, share = _scratch.two(*shape)
    partners = share if batch.is_float32 else np.empty(shape, pixels.dtype)
    [(*_, normalization)] = pieces.pieces(batch.form)
    alike = bool((batch.lam == batch.lam[0]).all())
    lam, rest = (each[0, ...] if alike else each[:, None, None] for each in (batch.lam, batch.rest))
    with np.errstate(all="ignore"):
        for rows in groups:
            to = out[rows]
            size = len(to)
            work = to if batch.becomes_float32 else mixed[:size]
            if weighed:
                batch.weigh(pixels[rows], lam if alike else lam[rows], work)
                # Without a mode numpy would gather into memory of its own and copy that.
                other = np.take(pixels, batch.partner[rows], 0, partners[:size], mode="clip")
                batch.weigh(other, rest if alike else rest[rows], share[:size])
                np.add(work, share[:size], work)
            else:
                batch.load(work, pixels[rows])
            batch.finish(work, normalization, to)


def _mix_large(batch: _Batch, images: Sequence[int]) -> None:
    """Mix images one by one, each in pieces."""
    read = _Reader(batch.pixels, batch.planes)
    outs = batch.in_planes(batch.out)
    parts = [
        (piece.planes, piece.values, piece.normalization, *_scratch.two(*piece.shape))
        for piece in pieces.pieces(batch.form)
    ]
    with np.errstate(all="ignore"):
        for i in images:
            partner, region = int(batch.partner[i]), batch.regions.get(i)
            own, other = read(i, beside=partner), read(partner, beside=i)
            if region is not None:
                own = batch.select(own, other, region, batch.out[i] if batch.is_copied else None)
                if batch.is_copied:
                    continue
            lam, rest, out = batch.lam[i, ...], batch.rest[i, ...], outs[i]
            for planes, values, normalization, mixed, share in parts:
                to = out[planes, values]
                work = to if batch.becomes_float32 else mixed
                if region is None:
                    batch.weigh(own[planes, values], lam, work)
                    batch.weigh(other[planes, values], rest, share)
                    np.add(work, share, work)
                else:
                    batch.load(work, own[planes, values])
                batch.finish(work, normalization, to)


class _Reader:
    """Reads images in the order of the output; of those that it rearranged it keeps the last two.

    ``read(i, beside=j)`` keeps j, if it is there. Images have the shape ``(planes, values)``.
    """

    def __init__(self, pixels: Array, planes: int) -> None:
        self.pixels = pixels
        self.in_order = pixels.flags.c_contiguous
        self.kept = np.empty((0 if self.in_order else 2, *pixels.shape[1:]), pixels.dtype)
        held = pixels if self.in_order else self.kept
        self.in_planes = held.reshape(len(held), planes, -1)
        self.images = [-1, -1]

    def __call__(self, image: int, *, beside: int) -> Array:
        if self.in_order:
            return self.in_planes[image]  # type: ignore[no-any-return]
        if image not in self.images:
            slot = 1 if self.images[0] == beside else 0
            copy(self.kept[slot], self.pixels[image])
            self.images[slot] = image
        return self.in_planes[self.images.index(image)]  # type: ignore[no-any-return]


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
