"""What a recipe holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dali_mixup.mixup import Mixup
from dali_mixup.output import OutputFormat

Options = Mapping[str, Any]

IMAGENET = OutputFormat(
    dtype="float32",
    layout="CHW",
    mean=(0.485 * 255, 0.456 * 255, 0.406 * 255),
    std=(0.229 * 255, 0.224 * 255, 0.225 * 255),
)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """One published training.

    Parameters
    ----------
    name : str
    model : str
        A name of torchvision's models, or "timm:" and a name of timm's.
    source, reported : str
        The source of the settings, and the result that was reported for them.
    left_out : str
        What the source has and this recipe has not, or has otherwise.
    image_size : int
        Height and width in pixels.
    batch_size : int
        The batch size of all processes together.
    epochs : int
    pipeline : mapping
        Options of :func:`dali_mixup.image_pipeline`.
    mixup : mapping
        Settings of :class:`dali_mixup.Mixup`.
    loss : mapping
        ``name``, a function of ``dali_mixup.losses``, and its arguments.
    model_options : mapping
        Arguments of the model, such as timm's ``drop_path_rate``.
    optimizer : mapping
        ``name``, a class of ``torch.optim`` or "Lamb", which is timm's, and its arguments; ``lr``
        is for `batch_size`. Biases and norms do not decay.
    layer_decay : float, optional
        The learning rate of each layer is so many times that of the layer above.
    clip_grad_norm : float, optional
        The largest norm of the gradient.
    schedule : mapping
        ``warmup_epochs``, linear from ``warmup_factor`` times ``lr``, and ``name``: "cosine", to
        ``min_factor`` times ``lr``; "step", times ``gamma`` at the epochs ``milestones``;
        "exponential", times ``gamma`` every ``every_epochs``.
    """

    name: str
    model: str
    source: str
    reported: str
    left_out: str
    image_size: int
    batch_size: int
    epochs: int
    mixup: Options
    optimizer: Options
    schedule: Options
    pipeline: Options = field(default_factory=dict)
    loss: Options = field(default_factory=lambda: {"name": "mixup_cross_entropy"})
    model_options: Options = field(default_factory=dict)
    layer_decay: float | None = None
    clip_grad_norm: float | None = None

    def __post_init__(self) -> None:
        for name in ("pipeline", "mixup", "loss", "model_options", "optimizer", "schedule"):
            object.__setattr__(self, name, MappingProxyType(dict(getattr(self, name))))

    def mixup_for(
        self, num_classes: int, *, output: OutputFormat = IMAGENET, **changes: Any
    ) -> Mixup:
        """Return the :class:`dali_mixup.Mixup` of this recipe.

        Parameters
        ----------
        num_classes : int
        output : OutputFormat
            By default float32 CHW, normalised with ImageNet's mean and std.
        **changes
            Settings that replace those of the recipe.

        Returns
        -------
        Mixup
        """
        return Mixup(num_classes=num_classes, output=output, **{**self.mixup, **changes})
