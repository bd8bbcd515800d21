"""The settings of mixup: they draw plans, and mix a batch when called."""

from __future__ import annotations

import inspect
import os
import sys
import threading
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dali_mixup.advice import advise_normalization, advise_process, advise_settings
from dali_mixup.backends.heads import checked_classes, classes_of_heads, in_the_form_of, split
from dali_mixup.backends.inputs import BACKENDS, LAYOUTS, Images, as_images, find_backend
from dali_mixup.backends.labels import as_rows, is_ignored, without_ignored
from dali_mixup.checks import (
    KEY_LIMIT,
    require_choice,
    require_int,
    require_pair,
    require_real,
)
from dali_mixup.output import OutputFormat
from dali_mixup.plan import (
    MODES,
    PAIRINGS,
    Draws,
    MixPlan,
    among,
    draw_plan,
    keyed_generator,
    require_left_alone,
    unmixed,
)
from dali_mixup.state import make_state, read_position

TARGETS = ("soft", "pairs")

_counting = threading.Lock()


class Position(NamedTuple):
    """Where a batch stands in a run; part of the key of its plan.

    `worker` holds the id and the seed of a torch DataLoader's worker, and is empty elsewhere.
    """

    epoch: int
    step: int
    stream: int = 0
    worker: tuple[int, ...] = ()


@dataclass
class Place:
    """Where a Mixup stands, which one with other settings takes over.

    Attributes
    ----------
    epoch, step : int
        Of the next call.
    next_loader_at : (epoch, step)
        Where the next loader over it begins.
    enabled : bool
    rank_elsewhere : int
        Of the process that it came from.
    """

    epoch: int = 0
    step: int = 0
    next_loader_at: tuple[int, int] = (0, 0)
    enabled: bool = True
    rank_elsewhere: int = 0


@dataclass(kw_only=True)
class Mixup:
    """Mixup and CutMix with soft labels, one batch at a time.

    The settings are checked when the object is created and cannot be changed afterwards. Only
    `enabled` can be assigned. ``dataclasses.replace(mixup, alpha=0.4)`` makes one with other
    settings, which goes on where `mixup` stands.

    Parameters
    ----------
    num_classes : int, None or dict
        The number of classes; class ids are in [0, num_classes). None: labels are dense rows with
        one column per class, or the values of a regression, and are mixed as they are. A dict has
        one of these for each head of a model with several: ``{"make": 196, "color": 12}``.
    alpha : float >= 0
        Mixup's ``lam ~ Beta(alpha, alpha)``; 0 turns mixup off. The paper's ImageNet range is
        0.1 to 0.4.
    cutmix_alpha : float >= 0
        The same for CutMix; 0 turns CutMix off.
    switch_prob : float in [0, 1]
        The probability of CutMix where both alphas are above 0.
    prob : float in [0, 1]
        The probability that a batch (mode "batch"), a sample ("elem") or a pair ("pair") is mixed.
    mode : {"batch", "elem", "pair"}
        One lam (and box) per batch; one per sample; one per pair of samples that are mixed with
        each other.
    pairing : {"permutation", "derangement", "flip", "roll"}
        The partner of sample i: from a random permutation; from a permutation in which no sample
        is its own partner; ``B - 1 - i`` (timm); ``i - 1`` (torchvision). In mode "pair" the first
        two draw random pairs, and with an odd batch size one sample is its own partner; "roll" is
        refused.
    fold : bool
        True: ``max(lam, 1 - lam)`` takes the place of lam, so that each sample's own share is at
        least 1/2, as in fast.ai and big_vision. False: as in the paper.
    label_smoothing : float in [0, 1)
        s: labels y become ``(1 - s) * y + s / num_classes``. Smooth here or in the loss, not in
        both. Labels without a number of classes are not smoothed.
    targets : {"soft", "pairs"}
        Dense rows of shape (B, num_classes), or ``(own, partner, lam)`` for a two-index loss.
    output : OutputFormat, optional
        The dtype, layout and normalisation of the mixed images. None keeps dtype and layout.
    layout : {"HWC", "CHW", "HW", "FHWC", "FCHW", "CFHW"}, optional
        The layout of the incoming images. "HW": one channel and shape (B, H, W). With F, the
        frames: clips or volumes, whose frames are mixed alike. None: inferred from the shape;
        ambiguous shapes raise ValueError.
    ignore_index : int, optional
        A class id, such as -1 or -100, whose samples are neither mixed nor mixed into others. Their
        rows of soft labels are zeros, which the functions of ``dali_mixup.losses`` leave out;
        other losses and metrics count them.
    seed : int >= 0
        Part of the key of every draw.
    rank : int >= 0, optional
        Part of the key of every draw. None: the global rank of torch.distributed, else the
        environment variable RANK, else 0.
    backend : {"auto", "numpy", "cupy"}
        "auto": numpy for images on the CPU, cupy for images on a GPU. "numpy" and "cupy" refuse
        images on the other device.

    Attributes
    ----------
    enabled : bool
        False returns unmixed batches in the same form, from the next batch on.

    Raises
    ------
    TypeError, ValueError
        A setting is outside its range, or settings exclude each other.

    Warns
    -----
    NothingMixedWarning
        Both alphas, or `prob`, are 0; see :meth:`for_validation`.

    References
    ----------
    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers", ICCV 2019.
    """

    num_classes: int | Mapping[str, int | None] | None
    alpha: float = 0.2
    cutmix_alpha: float = 0.0
    switch_prob: float = 0.5
    prob: float = 1.0
    mode: str = "batch"
    pairing: str = "permutation"
    fold: bool = False
    label_smoothing: float = 0.0
    targets: str = "soft"
    output: OutputFormat | None = None
    layout: str | None = None
    ignore_index: int | None = None
    seed: int = 0
    rank: int | None = None
    backend: str = "auto"
    enabled: bool = field(default=True, init=False, repr=False, compare=False)
    _place: Place = field(default_factory=Place, repr=False, compare=False)

    _run: ClassVar[Callable[..., Any]] = staticmethod(lambda call, *arguments: call(*arguments))

    def __post_init__(self) -> None:
        self._keep("num_classes", checked_classes(self.num_classes))
        self._keep("seed", require_int("seed", self.seed, least=0))
        if self.rank is not None:
            self._keep("rank", require_int("rank", self.rank, least=0, below=KEY_LIMIT))
        if self.ignore_index is not None:
            self._keep("ignore_index", require_int("ignore_index", self.ignore_index))
        for name in ("alpha", "cutmix_alpha"):
            value = require_real(name, getattr(self, name), "[0, inf)", lambda v: 0 <= v < np.inf)
            self._keep(name, value)
        for name in ("switch_prob", "prob"):
            value = require_real(name, getattr(self, name), "[0, 1]", lambda v: 0 <= v <= 1)
            self._keep(name, value)
        smoothing = require_real(
            "label_smoothing", self.label_smoothing, "[0, 1)", lambda v: 0 <= v < 1
        )
        self._keep("label_smoothing", smoothing)
        require_choice("mode", self.mode, MODES, optional=False)
        require_choice("pairing", self.pairing, PAIRINGS, optional=False)
        require_choice("targets", self.targets, TARGETS, optional=False)
        require_choice("backend", self.backend, BACKENDS, optional=False)
        require_choice("layout", self.layout, LAYOUTS)
        if self.output is not None and not isinstance(self.output, OutputFormat):
            raise TypeError(f"output: expected an OutputFormat or None, got {self.output!r}")
        if self.mode == "pair" and self.pairing == "roll":
            raise ValueError(
                "pairing: expected 'permutation', 'derangement' or 'flip' in mode 'pair', "
                "got 'roll', whose partners are not each other's"
            )
        if not isinstance(self.fold, bool):
            raise TypeError(f"fold: expected True or False, got {self.fold!r}")
        self._require_classes()
        advise_settings(self.alpha, self.cutmix_alpha, self.prob, stacklevel=3)
        self._format = self.output or OutputFormat()
        self._draws = Draws(*(getattr(self, name) for name in Draws._fields))
        self._keep("_place", copy(self._place))  # of the Mixup whose settings were replaced
        self._judged = False
        self._keep("enabled", self._place.enabled)
        self._process = os.getpid()
        self._environment = _Environment()
        _stay_outside_of_graphs()

    def __getstate__(self) -> dict[str, Any]:
        return {
            **self.__dict__,
            "_place": replace(self._place, rank_elsewhere=self.global_rank),
            "_environment": _Environment(),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _place=copy(state["_place"]))
        _stay_outside_of_graphs()

    def _keep(self, name: str, value: object) -> None:
        """Store a setting in Python's own type, which JSON knows."""
        self.__dict__[name] = value

    def _require_classes(self) -> None:
        """Raise ValueError where a setting asks for class ids, and `num_classes` tells of none."""
        heads = classes_of_heads(self.num_classes)
        if self.label_smoothing and not any(heads):
            raise ValueError(
                f"num_classes: expected an int beside label_smoothing={self.label_smoothing}, got "
                f"{self.num_classes}; labels without a number of classes are mixed as they are"
            )
        if self.ignore_index is not None and not isinstance(self.num_classes, int):
            raise ValueError(
                f"num_classes: expected an int beside ignore_index={self.ignore_index}, got "
                f"{self.num_classes}; ignored are the class ids of a single head"
            )
        if self.targets == "pairs":
            self._require_pairs()

    def _require_pairs(self) -> None:
        if self.label_smoothing:
            raise ValueError(
                f"label_smoothing: expected 0 beside targets='pairs', got {self.label_smoothing}; "
                "give it to the loss"
            )
        if not all(classes_of_heads(self.num_classes)):
            raise ValueError(
                f"num_classes: expected an int beside targets='pairs', got {self.num_classes}; "
                "pairs are class ids"
            )
        if self.ignore_index is not None:
            raise ValueError(
                f"ignore_index: expected None beside targets='pairs', got {self.ignore_index}; "
                "use targets='soft', where ignored rows are zeros"
            )

    def __setattr__(self, name: str, value: object) -> None:
        if name == "enabled" and not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"enabled: expected True or False, got {value!r}")
        if name in self.__dataclass_fields__ and name != "enabled" and name in self.__dict__:
            raise AttributeError(
                f"{name}: a setting is fixed once it is made; use "
                f"dataclasses.replace(mixup, {name}={value!r}), and where a loader has the Mixup, "
                "loader.mixup = dataclasses.replace(loader.mixup, ...)"
            )
        if name not in self.__dataclass_fields__ and not name.startswith("_"):
            raise AttributeError(
                f"{name}: a Mixup has no such setting; only enabled can be assigned"
            )
        if name == "enabled" and "_place" in self.__dict__:
            self._place.enabled = bool(value)
        super().__setattr__(name, value)

    def for_validation(self) -> Mixup:
        """Return a Mixup with the same output and targets that neither mixes nor smooths.

        Returns
        -------
        Mixup
            With ``enabled=False`` and ``label_smoothing=0``.
        """
        validation = replace(self, label_smoothing=0.0, _place=Place())
        validation.enabled = False
        return validation

    def plan(
        self,
        batch_size: int,
        image_size: tuple[int, int] | None = None,
        *,
        epoch: int = 0,
        step: int = 0,
        stream: int = 0,
    ) -> MixPlan:
        """Draw the plan of one batch. Equal settings, ranks and positions draw equal plans.

        Parameters
        ----------
        batch_size : int >= 0
            The number of samples that are delivered.
        image_size : (height, width), optional
            In pixels; required for CutMix.
        epoch, step : int >= 0
            The position of the batch: `step` counts the batches returned in this epoch.
        stream : int >= 0
            The index of the pipeline in the iterator's list.

        Returns
        -------
        MixPlan

        Raises
        ------
        ValueError
            CutMix without `image_size`.
        """
        require_int("batch_size", batch_size, least=0)
        if image_size is not None:
            for side in require_pair("image_size", image_size, "(height, width) in pixels"):
                require_int("image_size", side, least=0)
        return self._draw(batch_size, image_size, _position(epoch, step, stream))

    def _draw(
        self, batch_size: int, image_size: tuple[int, int] | None, position: Position
    ) -> MixPlan:
        epoch, step, stream, worker = position
        generator = keyed_generator(
            self.seed, rank=self.global_rank, stream=stream, epoch=epoch, step=step, worker=worker
        )
        return draw_plan(generator, batch_size, image_size, self._draws)

    @property
    def global_rank(self) -> int:
        """The rank that is part of the key of every draw.

        In a process that has none, such as a worker that was spawned, it is that of the process
        from which this Mixup came.
        """
        rank = self._own_rank()
        return self._place.rank_elsewhere if rank is None else rank

    def _own_rank(self) -> int | None:
        """The setting, else this process's; None where there is neither."""
        if self.rank is not None:
            return self.rank
        distributed = _distributed_rank()
        return self._environment.rank() if distributed is None else distributed

    def worker(self) -> tuple[int, ...]:
        """Id and seed of the torch DataLoader's worker that draws; empty elsewhere."""
        found = _worker()
        if not found and self._process != os.getpid():
            self._process = os.getpid()
            if self._own_rank() is None:
                advise_process(stacklevel=5)
        return found

    def plan_for(
        self,
        images: Any,
        labels: Any = None,
        *,
        epoch: int,
        step: int,
        stream: int = 0,
        mixed: bool = True,
    ) -> MixPlan:
        """Draw the plan of these images at a position.

        Parameters
        ----------
        images : torch tensor or numpy array
            As for a call.
        labels : torch tensor or numpy array, optional
            Needed with `ignore_index` alone.
        epoch, step, stream : int >= 0
            As for :meth:`plan`.
        mixed : bool
            False returns the plan that leaves every sample as it is, and so does ``enabled=False``.

        Returns
        -------
        MixPlan
        """
        batch = as_images(images, self.backend, self.layout)
        return self.plan_at(_position(epoch, step, stream), batch, labels, mixed)

    def plan_at(
        self, position: Position, images: Images, labels: Any, mixed: bool = True
    ) -> MixPlan:
        """:meth:`plan_for` in a run, whose DataLoader's worker is part of the position."""
        if not (self.enabled and mixed):
            return unmixed(images.batch_size)
        ignored = None if self.ignore_index is None else self._ignored(labels, self.ignore_index)
        if ignored is None:
            size = images.size if self.cutmix_alpha else None
            return self._draw(images.batch_size, size, position)
        kept = np.flatnonzero(~ignored)
        return among(self._draw(len(kept), images.size, position), kept, images.batch_size)

    def _ignored(self, labels: Any, ignore_index: int) -> NDArray[np.bool_] | None:
        """Which samples have the label `ignore_index`, shape (B,); None where none has it."""
        ignored = None if labels is None else is_ignored(labels, ignore_index)
        return ignored if ignored is not None and ignored.any() else None

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, for calls that draw their own plans.

        Parameters
        ----------
        epoch : int >= 0
        """
        require_int("epoch", epoch, least=0, below=KEY_LIMIT)
        self._place.epoch, self._place.step = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the calls that draw their own plans.

        Returns
        -------
        dict
            ``{"epoch", "step", "mixup", "changed", "dali", "data", "loader"}``, which can be stored
            as JSON. "mixup" holds the settings; the last four are empty. A loader has a state of
            its own.
        """
        return make_state(self, self._place.epoch, self._place.step)

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Continue from a state.

        Parameters
        ----------
        state : dict
            From :meth:`state_dict`.
        strict : bool
            True refuses a state of other settings.

        Raises
        ------
        TypeError, ValueError
            `state` is not a state; or `strict` is set and the settings differ. The message names
            them.
        """
        self._place.epoch, self._place.step = read_position(state, self, strict=strict)

    def __call__(self, images: Any, labels: Any, *, plan: MixPlan | None = None) -> tuple[Any, Any]:
        """Mix one batch.

        Parameters
        ----------
        images : torch tensor or numpy array, shape (B, C, H, W) or (B, H, W, C)
            uint8, uint16, float16, bfloat16 or float32, with any number of channels; other numbers
            than 1, 3 and 4 need `layout`. (B, H, W) with ``layout="HW"``; clips of shape
            (B, F, H, W, C), (B, F, C, H, W) or (B, C, F, H, W). float64 is converted to float32.
            They are not written to.
        labels : torch tensor or numpy array, tuple or dict of them, or None
            Class ids, integers of shape (B,) or (B, 1); dense rows of shape (B, num_classes); or,
            with ``num_classes=None``, values, floats of shape (B,) or (B, D). With several heads a
            dict with the keys of `num_classes`, or a tuple in their order.
        plan : MixPlan or DevicePlan, optional
            None draws the next plan; calls are counted.

        Returns
        -------
        images : torch tensor or numpy array
            In the form that `output` describes, in memory of their own.
        targets : torch tensor or numpy array, tuple of three, or None
            ``targets="soft"``: float32, shape (B, num_classes), or that of the values.
            ``targets="pairs"``: ``(own, partner, lam)``, int64, int64 and float32, each of shape
            (B,). None without labels. With several heads a dict or a tuple of these, as `labels`.

        Raises
        ------
        TypeError, ValueError
            Input outside the above. The message says what was expected and what was passed.
        """
        return self._run(self._call, images, labels, plan)  # type: ignore[no-any-return]

    def _call(self, images: Any, labels: Any, plan: MixPlan | None) -> tuple[Any, Any]:
        raise_reported()
        if plan is not None:
            return self.mix(images, labels, plan)
        place, worker = self._place, self.worker()
        with _counting:
            position = Position(place.epoch, place.step, worker=worker)
            place.step += 1
        try:
            batch = as_images(images, self.backend, self.layout)
            return self._mix(batch, labels, self.plan_at(position, batch, labels))
        except BaseException:
            with _counting:
                if (place.epoch, place.step) == (position.epoch, position.step + 1):
                    place.step -= 1
            raise

    def mix(self, images: Any, labels: Any, plan: MixPlan) -> tuple[Any, Any]:
        """Mix one batch by a plan; a call does the same, and raises errors of earlier batches.

        Parameters and results are those of a call.
        """
        return self._mix(as_images(images, self.backend, self.layout), labels, plan)

    def _mix(self, images: Images, labels: Any, plan: MixPlan) -> tuple[Any, Any]:
        if not hasattr(plan, "require_fit"):
            raise TypeError(f"plan: expected a MixPlan or a DevicePlan, got {plan!r}")
        ignored = None
        if self.ignore_index is not None:
            ignored = self._ignored(labels, self.ignore_index)
            if ignored is not None:
                require_left_alone(getattr(plan, "plan", plan), ignored)  # also of a DevicePlan
                labels = without_ignored(labels, self.ignore_index)
        mixed, targets = self._mix_heads(images, labels, plan)
        if not self._judged:
            self._judged = True
            advise_normalization(images.pixels, self.output, stacklevel=4)
        if images.without_channels and (self.output is None or self.output.layout is None):
            mixed = mixed[:, 0]
        if ignored is not None:
            targets[ignored] = 0
        return mixed, targets

    def _mix_heads(self, images: Images, labels: Any, plan: MixPlan) -> tuple[Any, Any]:
        """Images with the labels of the first head in one call, and those of the others after."""
        backend, output = images.backend, self._format
        if labels is None:
            settings = {"num_classes": 1, "label_smoothing": 0.0, "targets": "soft"}
            return backend.mix(  # type: ignore[no-any-return]
                images.pixels, None, plan, output, layout=images.layout, **settings
            )
        mixed, targets = None, []
        heads = zip(
            split(labels, self.num_classes), classes_of_heads(self.num_classes), strict=True
        )
        for part, num_classes in heads:
            rows = as_rows(part, num_classes)
            settings = {
                "num_classes": rows.num_classes,
                "label_smoothing": self.label_smoothing if num_classes else 0.0,
                "targets": self.targets,
            }
            if mixed is None:
                mixed, target = backend.mix(
                    images.pixels, rows.labels, plan, output, layout=images.layout, **settings
                )
            else:
                target = backend.mix_labels(images.pixels, rows.labels, plan, **settings)
            targets.append(target[:, 0] if rows.without_columns else target)
        return mixed, in_the_form_of(labels, targets, self.num_classes)

    def mix_masks(self, masks: Any, plan: MixPlan) -> Any:
        """Mix masks by the plan of their images: the partner's pixels inside each box.

        Parameters
        ----------
        masks : torch tensor or numpy array, shape (B, H, W), (B, 1, H, W) or (B, H, W, 1)
            Integers of 8 to 64 bits, or bools; H and W are those of the images. They are not
            written to.
        plan : MixPlan or DevicePlan
            One with CutMix alone: ``Mixup(alpha=0, cutmix_alpha=1.0)`` draws such plans.

        Returns
        -------
        torch tensor or numpy array
            With the shape and dtype of `masks`, in memory of their own.

        Raises
        ------
        TypeError, ValueError
            `masks` are outside the above, or `plan` weighs samples: a class of a mask has no mean
            with another one.
        """
        array, backend = find_backend(masks, self.backend, "masks")
        return self._run(backend.mix_masks, array, plan)


_parameters = inspect.signature(Mixup).parameters.values()
Mixup.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [each for each in _parameters if not each.name.startswith("_")]  # _place is for replace()
)


def _position(epoch: int, step: int, stream: int) -> Position:
    return Position(
        require_int("epoch", epoch, least=0, below=KEY_LIMIT),
        require_int("step", step, least=0, below=KEY_LIMIT),
        require_int("stream", stream, least=0, below=KEY_LIMIT),
    )


def raise_reported() -> None:
    """Raise the error of an earlier batch whose labels a GPU has found to be out of range."""
    cuda = sys.modules.get("dali_mixup.backends.cuda.backend")
    if cuda is not None:
        cuda.raise_reported()


def _worker() -> tuple[int, ...]:
    """Id and seed of the torch DataLoader's worker that this process is; empty elsewhere.

    The seed of a worker is another one in every epoch, and follows from torch's generator.
    """
    data = sys.modules.get("torch.utils.data")
    info = None if data is None else data.get_worker_info()
    return () if info is None else (info.id, info.seed % KEY_LIMIT, info.seed // KEY_LIMIT)


def _stay_outside_of_graphs() -> None:
    """Let ``torch.compile`` break its graph at a call, where torch is imported."""
    if "torch" in sys.modules:
        tensors = import_module("dali_mixup.backends.tensors")
        Mixup._run = staticmethod(tensors.outside_of_graphs)


def _distributed_rank() -> int | None:
    """That of torch.distributed; None where it is not initialised."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is None or not distributed.is_available() or not distributed.is_initialized():
        return None
    return int(distributed.get_rank())


class _Environment:
    """The variable RANK, read once in a process: each reading takes some microseconds."""

    def __init__(self) -> None:
        self._process = 0
        self._rank: int | None = None

    def rank(self) -> int | None:
        """Its value, or None where it is not set; ValueError where it is no number."""
        if self._process != os.getpid():
            self._rank, self._process = _rank_in_environment(), os.getpid()
        return self._rank


def _rank_in_environment() -> int | None:
    rank = os.environ.get("RANK")
    if rank is None:
        return None
    if not rank.isdecimal():
        raise ValueError(f"RANK: expected an integer >= 0 in the environment, got {rank!r}")
    return int(rank)
