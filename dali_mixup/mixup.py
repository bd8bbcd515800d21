"""The settings of mixup: they draw plans, and mix a batch when called."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any

import numpy as np

from dali_mixup.advice import advise_settings
from dali_mixup.checks import require_choice, require_int, require_real
from dali_mixup.output import OutputFormat, guess_layout
from dali_mixup.plan import MODES, PAIRINGS, MixPlan, draw_plan, keyed_generator, unmixed
from dali_mixup.state import make_state, read_position

BACKENDS = ("auto", "numpy", "cupy")
TARGETS = ("soft", "pairs")


@dataclass(kw_only=True)
class Mixup:
    """Mixup and CutMix with soft labels, one batch at a time.

    The settings are checked when the object is created and cannot be changed afterwards. Only
    `enabled` can be assigned.

    Parameters
    ----------
    num_classes : int
        Number of classes; class ids are in [0, num_classes).
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
    label_smoothing : float in [0, 1)
        s: labels y become ``(1 - s) * y + s / num_classes``. Smooth here or in the loss, not in
        both.
    targets : {"soft", "pairs"}
        Dense rows of shape (B, num_classes), or ``(own, partner, lam)`` for a two-index loss.
    output : OutputFormat, optional
        The dtype, layout and normalisation of the mixed images. None keeps dtype and layout.
    layout : {"HWC", "CHW"}, optional
        The layout of the incoming images. None: inferred from their shape; ambiguous shapes raise
        ValueError.
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
        False hands out unmixed batches in the same form, from the next batch on.

    Raises
    ------
    TypeError, ValueError
        A setting is outside its range, or settings exclude each other.

    Warns
    -----
    UnderfittingWarning
        `alpha` above 0.5 with `label_smoothing`.
    NothingMixedWarning
        Both alphas, or `prob`, are 0; see :meth:`for_validation`.

    References
    ----------
    Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
    Yun et al., "CutMix: Regularization Strategy to Train Strong Classifiers", ICCV 2019.
    """

    num_classes: int
    alpha: float = 0.2
    cutmix_alpha: float = 0.0
    switch_prob: float = 0.5
    prob: float = 1.0
    mode: str = "batch"
    pairing: str = "permutation"
    label_smoothing: float = 0.0
    targets: str = "soft"
    output: OutputFormat | None = None
    layout: str | None = None
    seed: int = 0
    rank: int | None = None
    backend: str = "auto"
    enabled: bool = field(default=True, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_int("num_classes", self.num_classes, least=1)
        require_int("seed", self.seed, least=0)
        if self.rank is not None:
            require_int("rank", self.rank, least=0)
        for name in ("alpha", "cutmix_alpha"):
            require_real(name, getattr(self, name), "[0, inf)", lambda v: 0 <= v < np.inf)
        for name in ("switch_prob", "prob"):
            require_real(name, getattr(self, name), "[0, 1]", lambda v: 0 <= v <= 1)
        require_real("label_smoothing", self.label_smoothing, "[0, 1)", lambda v: 0 <= v < 1)
        require_choice("mode", self.mode, MODES, optional=False)
        require_choice("pairing", self.pairing, PAIRINGS, optional=False)
        require_choice("targets", self.targets, TARGETS, optional=False)
        require_choice("backend", self.backend, BACKENDS, optional=False)
        require_choice("layout", self.layout, ("HWC", "CHW"))
        if self.output is not None and not isinstance(self.output, OutputFormat):
            raise TypeError(f"output: expected an OutputFormat or None, got {self.output!r}")
        if self.mode == "pair" and self.pairing == "roll":
            raise ValueError(
                "pairing: expected 'permutation', 'derangement' or 'flip' in mode 'pair', "
                "got 'roll', whose partners are not each other's"
            )
        if self.targets == "pairs" and self.label_smoothing:
            raise ValueError(
                f"label_smoothing: expected 0 beside targets='pairs', got {self.label_smoothing}; "
                "give it to the loss"
            )
        advise_settings(
            self.alpha, self.cutmix_alpha, self.prob, self.label_smoothing, stacklevel=3
        )
        self._epoch = self._step = 0

    def __setattr__(self, name: str, value: object) -> None:
        if name in Mixup.__dataclass_fields__ and name != "enabled" and name in self.__dict__:
            raise AttributeError(
                f"{name}: a setting is fixed once it is made; "
                f"use dataclasses.replace(mixup, {name}={value!r})"
            )
        super().__setattr__(name, value)

    def for_validation(self) -> Mixup:
        """Return a Mixup with the same output and targets that neither mixes nor smooths.

        Returns
        -------
        Mixup
            With ``enabled=False`` and ``label_smoothing=0``.
        """
        validation = replace(self, label_smoothing=0.0)
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
            The position of the batch: `step` counts the batches handed out in this epoch.
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
        rank = _global_rank() if self.rank is None else self.rank
        return draw_plan(
            keyed_generator(self.seed, rank=rank, stream=stream, epoch=epoch, step=step),
            batch_size,
            image_size,
            alpha=self.alpha,
            cutmix_alpha=self.cutmix_alpha,
            switch_prob=self.switch_prob,
            prob=self.prob,
            mode=self.mode,
            pairing=self.pairing,
        )

    def plan_for(
        self, images: Any, *, epoch: int, step: int, stream: int = 0, mixed: bool = True
    ) -> MixPlan:
        """Draw the plan of these images at a position.

        Parameters
        ----------
        images : torch tensor or numpy array, shape (B, C, H, W) or (B, H, W, C)
        epoch, step, stream : int >= 0
            As for :meth:`plan`.
        mixed : bool
            False returns the plan that leaves every sample as it is, and so does ``enabled=False``.

        Returns
        -------
        MixPlan
        """
        _engine(images, self.backend)
        shape = tuple(images.shape)
        layout = self.layout or guess_layout(shape)
        if not (self.enabled and mixed):
            return unmixed(shape[0])
        size = shape[2:4] if layout == "CHW" else shape[1:3]
        return self.plan(shape[0], size, epoch=epoch, step=step, stream=stream)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, for calls that draw their own plans.

        Parameters
        ----------
        epoch : int >= 0
        """
        require_int("epoch", epoch, least=0)
        self._epoch, self._step = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Return the position of the calls that draw their own plans.

        Returns
        -------
        dict
            ``{"epoch", "step", "mixup", "dali"}``, which can be stored as JSON. "mixup" holds the
            settings, "dali" is empty.
        """
        return make_state(self, self._epoch, self._step)

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
        self._epoch, self._step = read_position(state, self, strict=strict)

    def __call__(self, images: Any, labels: Any, *, plan: MixPlan | None = None) -> tuple[Any, Any]:
        """Mix one batch.

        Parameters
        ----------
        images : torch tensor or numpy array, shape (B, C, H, W) or (B, H, W, C)
            uint8, float16, bfloat16 or float32, with 1, 3 or 4 channels. They are not written to.
        labels : torch tensor or numpy array, or None
            Class ids, integers of shape (B,) or (B, 1), or dense rows of shape (B, num_classes).
        plan : MixPlan, optional
            None draws the next plan; calls are counted.

        Returns
        -------
        images : torch tensor or numpy array
            In the form that `output` describes, in memory of their own.
        targets : torch tensor or numpy array, tuple of three, or None
            ``targets="soft"``: float32, shape (B, num_classes). ``targets="pairs"``:
            ``(own, partner, lam)``, int64, int64 and float32, each of shape (B,). None without
            labels.

        Raises
        ------
        TypeError, ValueError
            Input outside the above. The message says what was expected and what was passed.
        """
        engine = _engine(images, self.backend)
        if plan is None:
            plan = self.plan_for(images, epoch=self._epoch, step=self._step)
            self._step += 1
        return engine.mix(  # type: ignore[no-any-return]
            images,
            labels,
            plan,
            self.output or OutputFormat(),
            layout=self.layout or guess_layout(tuple(images.shape)),
            num_classes=self.num_classes,
            label_smoothing=self.label_smoothing,
            targets=self.targets,
        )


def _engine(images: Any, backend: str) -> Any:
    """The module whose `mix` takes these images."""
    torch = sys.modules.get("torch")
    if isinstance(images, np.ndarray):
        device, engine = "cpu", "reference"
    elif torch is not None and isinstance(images, torch.Tensor):
        device = images.device.type
        engine = {"cpu": "torch_cpu", "cuda": "cuda.backend"}.get(device, "")
    else:
        raise TypeError(
            f"images: expected a numpy array or a torch tensor, got {type(images).__name__}; "
            "a batch of DALI's dynamic mode becomes one by .torch()"
        )
    wanted = {"auto": device, "numpy": "cpu", "cupy": "cuda"}[backend]
    if not engine or wanted != device:
        raise TypeError(
            f"images: expected on {' or '.join(_DEVICES[backend])} for backend={backend!r}, "
            f"got on {device!r}"
        )
    return import_module(f"dali_mixup.backends.{engine}")


_DEVICES = {"auto": ("'cpu'", "'cuda'"), "numpy": ("'cpu'",), "cupy": ("'cuda'",)}


def _global_rank() -> int:
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    rank = os.environ.get("RANK", "0")
    if not rank.isdecimal():
        raise ValueError(f"RANK: expected an integer >= 0 in the environment, got {rank!r}")
    return int(rank)
