"""The settings a user chooses: they draw plans, and mix a batch when called."""

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
    """Mixup and CutMix with soft labels, for a batch at a time.

    The settings are checked here, once, and fixed from then on; only `enabled` can be assigned.

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
        With both on: the share that is cut and not mixed.
    prob : float in [0, 1]
        The share of batches (mode "batch"), samples ("elem") or pairs ("pair") that are mixed.
    mode : {"batch", "elem", "pair"}
        One lam (and box) for the batch; one per sample; one per pair, mixed with each other.
    pairing : {"permutation", "derangement", "flip", "roll"}
        Who meets whom: any permutation; one where nobody meets itself; ``B - 1 - i`` (timm);
        ``i - 1`` (torchvision). In mode "pair" the first two draw random pairs, an odd one out
        meets itself, and "roll" has no pairs.
    label_smoothing : float in [0, 1)
        s: labels y become ``(1 - s) * y + s / num_classes``. Smooth here or in the loss, not twice.
    targets : {"soft", "pairs"}
        Dense rows (B, num_classes), or ``(own, partner, lam)`` for a loss with two indices.
    output : OutputFormat, optional
        None keeps the images' dtype and layout.
    layout : {"HWC", "CHW"}, optional
        Of the incoming images; None: from their shape, an error where that is ambiguous.
    seed : int >= 0
    rank : int >= 0, optional
        Part of the key of every draw. None: torch.distributed's global rank, else the variable
        RANK, else 0.
    backend : {"auto", "numpy", "cupy"}
        "auto": numpy for images on the CPU, cupy for images on a GPU; the others: that one or an
        error.

    Attributes
    ----------
    enabled : bool
        False hands out unmixed batches in the same form, from the next one on.

    Raises
    ------
    TypeError, ValueError
        A setting outside the above, or settings that exclude each other.

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
        """The same output and form of targets, but nothing mixed and nothing smoothed."""
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
        """Draw the plan of one batch: the same for the same settings, rank and position.

        Parameters
        ----------
        batch_size : int >= 0
            Samples that are really there.
        image_size : (height, width), optional
            In pixels; needed for CutMix.
        epoch, step : int >= 0
            The position: step counts the batches handed out in this epoch.
        stream : int >= 0
            Which pipeline of the iterator's list.

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
        """The plan of these images at a position: :meth:`plan`; unmixed while not `enabled`."""
        _engine(images, self.backend)
        shape = tuple(images.shape)
        layout = self.layout or guess_layout(shape)
        if not (self.enabled and mixed):
            return unmixed(shape[0])
        size = shape[2:4] if layout == "CHW" else shape[1:3]
        return self.plan(shape[0], size, epoch=epoch, step=step, stream=stream)

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch, for the plans that calls without one draw."""
        require_int("epoch", epoch, least=0)
        self._epoch, self._step = epoch, 0

    def state_dict(self) -> dict[str, Any]:
        """Where the calls without a plan stand: ``{"epoch", "step", "mixup", "dali"}``, JSON-able.

        "mixup" holds the settings, to compare; "dali" is empty.
        """
        return make_state(self, self._epoch, self._step)

    def load_state_dict(self, state: Mapping[str, Any], *, strict: bool = True) -> None:
        """Go on where a state stands.

        Raises
        ------
        TypeError, ValueError
            This is no state; or, with `strict`, one of other settings, which are named.
        """
        self._epoch, self._step = read_position(state, self, strict=strict)

    def __call__(self, images: Any, labels: Any, *, plan: MixPlan | None = None) -> tuple[Any, Any]:
        """Mix one batch.

        Parameters
        ----------
        images : torch tensor or numpy array, shape (B, C, H, W) or (B, H, W, C)
            uint8, float16, bfloat16 or float32; 1, 3 or 4 channels. Only read.
        labels : of the same kind, or None
            Class ids, integers of shape (B,) or (B, 1), or dense (B, num_classes).
        plan : MixPlan, optional
            None draws the next one of this object's own count of calls.

        Returns
        -------
        images
            As `output` says, in memory of their own.
        targets
            "soft": float32 (B, num_classes). "pairs": ``(own, partner, lam)``, int64, int64 and
            float32, each (B,). None without labels.

        Raises
        ------
        TypeError, ValueError
            Input outside the above; the message says what was expected and got.
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
