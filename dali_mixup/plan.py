"""What is drawn for one batch: the partner, the share and the box of each sample.

Plans are drawn on the host by a generator that is keyed by the position of the run. There is no
generator state to save, and no global generator is touched.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

BOX_LIMIT = 65535
TINY = 2.0**-126
"""Shares below it are 0: float32 has fewer digits there."""

MODES = ("batch", "elem", "pair")
PAIRINGS = ("permutation", "derangement", "flip", "roll")


@dataclass(frozen=True, eq=False, init=False)
class MixPlan:
    """How each sample of one batch is mixed. Its arrays are read-only.

    Parameters
    ----------
    partner : array of int, shape (B,), values in [0, B)
        The index, inside the same batch, of the image that is mixed in. Stored as int32.
    lam : array of float, shape (B,), values in [0, 1]
        The share of the sample's own image and label. Stored as float32.
    box : array of int, shape (B, 4), optional
        Half-open rectangles ``y0, y1, x0, x1`` in pixels that are taken from the partner (CutMix).
        ``y0 == y1`` or ``x0 == x1`` means no rectangle. Where a sample has a rectangle, its ``lam``
        weighs the label alone. Stored as int32; None where no sample has a rectangle.

    Raises
    ------
    TypeError
        `partner` or `box` does not hold integers.
    ValueError
        A shape or a value is outside the ranges above.
    """

    partner: NDArray[np.int32]
    lam: NDArray[np.float32]
    box: NDArray[np.int32] | None = None

    _image_size: ClassVar[tuple[int, int] | None] = None  # that the boxes were drawn for

    def __init__(self, partner: ArrayLike, lam: ArrayLike, box: ArrayLike | None = None) -> None:
        partners = _integers(partner, "partner").copy()
        if partners.ndim != 1:
            raise ValueError(f"partner: expected shape (B,), got {partners.shape}")
        size = len(partners)
        lams = np.array(lam, np.float32)
        if lams.shape != (size,):
            raise ValueError(f"lam: expected shape ({size},) as partner has, got {lams.shape}")
        if size:
            if partners.min() < 0 or partners.max() >= size:
                bad = int(np.flatnonzero((partners < 0) | (partners >= size))[0])
                raise ValueError(
                    f"partner: expected indices in [0, {size}), got {partners[bad]} at row {bad}"
                )
            if not (lams.min() >= 0 and lams.max() <= 1):
                bad = int(np.flatnonzero(~((lams >= 0) & (lams <= 1)))[0])
                raise ValueError(f"lam: expected values in [0, 1], got {lams[bad]} at row {bad}")
        self._keep(partners, lams, None if box is None else _checked_box(box, size))

    @classmethod
    def _drawn(
        cls,
        partner: NDArray[Any],
        lam: NDArray[Any],
        box: NDArray[Any] | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> MixPlan:
        """A plan of arrays that are known to be valid, for this size, and used nowhere else."""
        plan = object.__new__(cls)
        plan._keep(partner, lam, box)
        plan.__dict__["_image_size"] = image_size
        return plan

    def _keep(self, partner: NDArray[Any], lam: NDArray[Any], box: NDArray[Any] | None) -> None:
        self.__dict__.update(
            partner=_frozen(partner, _INT32),
            lam=_frozen(lam, _FLOAT32),
            box=None if box is None else _frozen(box, _INT32),
        )

    def __len__(self) -> int:
        return len(self.partner)

    def __reduce__(self) -> tuple[Any, ...]:
        return MixPlan, (self.partner, self.lam, self.box)

    def require_fit(self, batch_size: int, height: int, width: int) -> None:
        """Raise ValueError unless this plan fits `batch_size` images of `height` x `width` pixels.

        Parameters
        ----------
        batch_size, height, width : int
        """
        if len(self) != batch_size:
            raise ValueError(f"plan: expected one of {batch_size} samples, got {len(self)}")
        if self.box is None or not batch_size:
            return
        if max(height, width) > BOX_LIMIT:
            raise ValueError(
                f"images: expected sides of at most {BOX_LIMIT} pixels for CutMix, got "
                f"{height} x {width}; set cutmix_alpha=0 or crop"
            )
        if (height, width) == self._image_size:
            return
        bottom, right = int(self.box[:, 1].max()), int(self.box[:, 3].max())
        if bottom > height or right > width:
            raise ValueError(
                f"plan: expected boxes inside images of {height} x {width} pixels, got one "
                f"that ends at {bottom} x {right}; draw the plan with this image_size"
            )


def unmixed(batch_size: int) -> MixPlan:
    """Return the plan that leaves every sample as it is.

    Parameters
    ----------
    batch_size : int >= 0

    Returns
    -------
    MixPlan
    """
    return MixPlan._drawn(np.arange(batch_size), np.ones(batch_size))


def among(plan: MixPlan, samples: NDArray[np.intp], batch_size: int) -> MixPlan:
    """The plan for `samples` of a larger batch, whose other samples are left as they are.

    Parameters
    ----------
    plan : MixPlan
        One of ``len(samples)`` samples.
    samples : int array
        Their indices in the batch.
    batch_size : int
    """
    partner = np.arange(batch_size)
    partner[samples] = samples[plan.partner]
    lam = np.ones(batch_size)
    lam[samples] = plan.lam
    box = None
    if plan.box is not None:
        box = np.zeros((batch_size, 4), np.int32)
        box[samples] = plan.box
    return MixPlan._drawn(partner, lam, box, plan._image_size)


def require_left_alone(plan: MixPlan, ignored: NDArray[np.bool_]) -> None:
    """Raise ValueError where the plan mixes a sample that is to be ignored, or mixes it in."""
    mixed = plan.lam < 1
    if plan.box is not None:
        mixed = mixed | plan.box.any(1)
    bad = np.flatnonzero(mixed & (ignored | ignored[plan.partner]))
    if len(bad):
        raise ValueError(
            f"plan: expected samples with the label ignore_index to be left alone, got row {bad[0]}"
            " mixed; draw it by plan_for(images, labels, ...)"
        )


def cutmix_box(
    lam: ArrayLike, cy: ArrayLike, cx: ArrayLike, height: int, width: int
) -> NDArray[np.int32]:
    """Return the rectangle that CutMix takes from the partner, clipped to the image.

    Each side is the even part of ``int(side of the image * sqrt(1 - lam))`` before clipping, as in
    torchvision, so that about ``1 - lam`` of the image is covered. timm 1.0.31 keeps odd sides.

    Parameters
    ----------
    lam : float or array (B,), in [0, 1]
        The share of the image that stays, before clipping.
    cy, cx : int or array (B,), in [0, height) and [0, width)
        The centre of the rectangle, in pixels.
    height, width : int
        The size of the image, in pixels.

    Returns
    -------
    int32 array, shape (4,) or (B, 4)
        ``y0, y1, x0, x1``, half-open.

    References
    ----------
    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers", ICCV 2019.
    """
    shape = np.broadcast_shapes(np.shape(lam), np.shape(cy), np.shape(cx))
    sides = np.array([height, width]).reshape(2, *[1] * len(shape))
    centre = np.stack([np.broadcast_to(cy, shape), np.broadcast_to(cx, shape)])
    return _boxes(np.broadcast_to(np.asarray(lam, np.float64), shape), centre, sides)


def _boxes(
    lam: NDArray[np.float64], centre: NDArray[np.int64], sides: NDArray[np.int64]
) -> NDArray[np.int32]:
    """:func:`cutmix_box` with both centres, and both sides, in one array."""
    half = (sides * np.sqrt(1.0 - lam)).astype(np.int64) >> 1
    box = np.empty((*lam.shape, 4), np.int32)
    box[..., 0], box[..., 2] = np.maximum(centre - half, 0)
    box[..., 1], box[..., 3] = np.minimum(centre + half, sides)
    return box


def _one_box(lam: float, cy: int, cx: int, height: int, width: int) -> tuple[int, int, int, int]:
    """:func:`cutmix_box` of numbers, which take less time than arrays of one."""
    half = math.sqrt(1.0 - lam)
    half_y, half_x = int(height * half) // 2, int(width * half) // 2
    y0, y1 = max(cy - half_y, 0), min(cy + half_y, height)
    x0, x1 = max(cx - half_x, 0), min(cx + half_x, width)
    return y0, y1, x0, x1


class _Drawing(threading.local):
    """A thread's generator, which takes the key and the counter of each draw.

    Making a new generator for each draw would take longer than most draws.
    """

    def __init__(self) -> None:
        bits = np.random.Philox(0)
        self.bits, self.generator, self.state = bits, np.random.Generator(bits), bits.state
        self.position = self.state["state"]
        self.counter = self.position["counter"]


_INT32, _FLOAT32 = np.dtype(np.int32), np.dtype(np.float32)

_drawing = _Drawing()


@lru_cache(maxsize=1024)
def _key(seed: int, spawn_key: tuple[int, ...]) -> NDArray[np.uint64]:
    state = np.random.SeedSequence(seed, spawn_key=spawn_key).generate_state(2, np.uint64)
    return state.astype(np.uint64)


def keyed_generator(
    seed: int, *, rank: int, stream: int, epoch: int, step: int, worker: tuple[int, ...] = ()
) -> np.random.Generator:
    """Return the generator that draws the plan of one step. Equal keys draw equal plans.

    Philox's key follows from seed, rank, stream and worker, its counter from epoch and step. The
    generator is this thread's only one: the next call sets it to another key.
    """
    _drawing.counter[2], _drawing.counter[3] = step, epoch
    _drawing.position["key"] = _key(seed, (rank, stream, *worker))
    _drawing.bits.state = _drawing.state
    return _drawing.generator


class Draws(NamedTuple):
    """What plans are drawn by: settings of :class:`dali_mixup.Mixup`, taken as checked."""

    alpha: float
    cutmix_alpha: float
    switch_prob: float
    prob: float
    mode: str
    pairing: str
    fold: bool


def draw_plan(
    rng: np.random.Generator, batch_size: int, image_size: tuple[int, int] | None, draws: Draws
) -> MixPlan:
    """Draw a plan."""
    if draws.cutmix_alpha == 0:
        image_size = None
    elif image_size is None:
        raise ValueError("image_size: expected (height, width) in pixels for CutMix, got None")
    elif not image_size[0] * image_size[1]:
        raise ValueError(
            f"images: expected pixels to cut for CutMix, got {image_size[0]} x {image_size[1]}"
        )
    if draws.mode == "pair":
        partner = _pairs(draws.pairing, batch_size, rng)
        lam, box = _draw_each(rng, batch_size, image_size, draws)
        first = np.minimum(np.arange(batch_size), partner)
        box = None if box is None else box[first]
        return MixPlan._drawn(partner, lam[first], box, image_size)
    partner = _partners(draws.pairing, batch_size, rng)
    if draws.mode == "elem":
        lam, box = _draw_each(rng, batch_size, image_size, draws)
        return MixPlan._drawn(partner, lam, box, image_size)
    share, edges = _draw_one(rng, image_size, draws)
    lam = np.empty(batch_size, np.float32)
    lam.fill(share)
    box = None
    if edges is not None:
        box = np.empty((batch_size, 4), np.int32)
        box[:] = edges
    return MixPlan._drawn(partner, lam, box, image_size)


def _draw_one(
    rng: np.random.Generator, image_size: tuple[int, int] | None, draws: Draws
) -> tuple[float, tuple[int, int, int, int] | None]:
    """The share of the own image and the box of all samples alike; no box without CutMix."""
    no_box = None if image_size is None else (0, 0, 0, 0)
    if draws.prob < 1 and rng.random() >= draws.prob:
        return 1.0, no_box
    cut = image_size is not None and (draws.alpha == 0 or rng.random() < draws.switch_prob)
    alpha = draws.cutmix_alpha if cut else draws.alpha
    if alpha == 0:
        return 1.0, no_box
    lam = rng.random() if alpha == 1 else rng.beta(alpha, alpha)
    lam = max(lam, 1 - lam) if draws.fold else lam if lam >= TINY else 0.0
    if image_size is None or not cut:
        return lam, no_box
    height, width = image_size
    cy, cx = int(rng.random() * height), int(rng.random() * width)
    y0, y1, x0, x1 = box = _one_box(lam, cy, cx, height, width)
    area = (y1 - y0) * (x1 - x0)
    return 1 - area / (height * width), box if area else no_box


def _draw_each(
    rng: np.random.Generator, size: int, image_size: tuple[int, int] | None, draws: Draws
) -> tuple[NDArray[np.float64], NDArray[np.int32] | None]:
    """The share of the own image and the box of each sample; no boxes without CutMix."""
    alpha, cutmix_alpha, switch_prob, prob, *_, fold = draws
    applied = rng.random(size) < prob if prob < 1 else np.ones(size, np.bool_)
    cut = np.zeros(size, np.bool_)
    if image_size is not None:
        cut = applied if alpha == 0 else applied & (rng.random(size) < switch_prob)
    lam, weighed = np.ones(size), applied & ~cut
    if alpha > 0:
        lam[weighed] = _shares(rng, alpha, int(np.count_nonzero(weighed)), fold=fold)
    if image_size is None:
        return lam, None
    count, sides = int(np.count_nonzero(cut)), np.array(image_size)[:, None]
    drawn = _shares(rng, cutmix_alpha, count, fold=fold)
    boxes = _boxes(drawn, (rng.random((2, count)) * sides).astype(np.int64), sides)
    y0, y1, x0, x1 = boxes.T
    area = (y1 - y0).astype(np.int64) * (x1 - x0)
    if not area.all():
        boxes[area == 0] = 0
    lam[cut] = 1 - area / (image_size[0] * image_size[1])
    box = np.zeros((size, 4), np.int32)
    box[cut] = boxes
    return lam, box


def _shares(
    rng: np.random.Generator, alpha: float, size: int, *, fold: bool
) -> NDArray[np.float64]:
    """Shares of the own image; folded, the larger ones of lam and 1 - lam."""
    lam = rng.random(size) if alpha == 1 else rng.beta(alpha, alpha, size)  # Beta(1, 1) is uniform
    if fold:
        return np.maximum(lam, 1 - lam)
    lam[lam < TINY] = 0
    return lam


def _partners(pairing: str, size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    if pairing == "flip":
        return np.arange(size)[::-1]
    if pairing == "roll":
        return np.roll(np.arange(size), 1)
    order: NDArray[np.intp] = rng.permutation(size)
    if pairing == "permutation":
        return order
    partner = np.empty_like(order)
    partner[order] = np.roll(order, 1)  # one cycle through all: nobody meets itself
    return partner


def _pairs(pairing: str, size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Partners that are each other's; with an odd size one sample is its own partner."""
    if pairing == "flip":
        return _partners(pairing, size, rng)
    order: NDArray[np.intp] = rng.permutation(size)
    half = size // 2
    partner: NDArray[np.intp] = order.copy()
    partner[order[:half]], partner[order[half : 2 * half]] = order[half : 2 * half], order[:half]
    partner[order[2 * half :]] = order[2 * half :]
    return partner


def _integers(values: ArrayLike, name: str) -> NDArray[Any]:
    array = np.asarray(values)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name}: expected integers, got {array.dtype}")
    return array


def _checked_box(box: ArrayLike, size: int) -> NDArray[Any]:
    boxes: NDArray[Any] = _integers(box, "box").copy()
    if boxes.shape != (size, 4):
        raise ValueError(f"box: expected shape ({size}, 4), got {boxes.shape}")
    y0, y1, x0, x1 = boxes.T
    good = (y0 >= 0) & (y0 <= y1) & (y1 <= BOX_LIMIT) & (x0 >= 0) & (x0 <= x1) & (x1 <= BOX_LIMIT)
    if not good.all():
        bad = int(np.flatnonzero(~good)[0])
        raise ValueError(
            f"box: expected 0 <= y0 <= y1 <= {BOX_LIMIT} and 0 <= x0 <= x1 <= {BOX_LIMIT}, "
            f"got y0, y1, x0, x1 = {boxes[bad].tolist()} at row {bad}"
        )
    return boxes


def _frozen(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    frozen: NDArray[Any] = array.astype(dtype, "C", copy=False)
    frozen.setflags(write=False)
    return frozen
