"""Published trainings with mixup as data: options of the pipeline, ``Mixup`` and the optimiser."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dali_mixup.checks import require_choice
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
    name, model : str
        `model` is a name of torchvision.
    source, reported : str
        The source of the settings, and the result that was reported for them.
    image_size : int
        Height and width in pixels.
    batch_size : int
        The batch size of all processes together.
    epochs : int
    pipeline : mapping
        Options of :func:`dali_mixup.image_pipeline`.
    mixup : mapping
        Settings of :class:`dali_mixup.Mixup`.
    optimizer : mapping
        ``name``, a class of ``torch.optim``, and its arguments; ``lr`` is for `batch_size`.
    schedule : mapping
        ``warmup_epochs``, linear from ``warmup_factor`` times ``lr``, and ``name``: "cosine", to 0;
        "step", times ``gamma`` at the epochs ``milestones``; "exponential", times ``gamma`` every
        ``every_epochs``.
    """

    name: str
    model: str
    source: str
    reported: str
    image_size: int
    batch_size: int
    epochs: int
    mixup: Options
    optimizer: Options
    schedule: Options
    pipeline: Options = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("pipeline", "mixup", "optimizer", "schedule"):
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


_RECIPES = (
    Recipe(
        name="vit-b16-imagenet",
        model="vit_b_16",
        source="optimiser and schedule: He et al., Masked Autoencoders, CVPR 2022, A.2 (ViT-B from "
        "scratch); augmentation: RandAugment (2, 9); mixing: alpha 0.2 and smoothing 0.1",
        reported="82.3 % top-1 on ImageNet-1K without more data, there with alpha 0.8, CutMix, "
        "stochastic depth and averaged weights",
        image_size=224,
        batch_size=4096,
        epochs=300,
        pipeline={"randaugment": (2, 9)},
        mixup={"alpha": 0.2, "label_smoothing": 0.1},
        optimizer={"name": "AdamW", "lr": 1.6e-3, "betas": (0.9, 0.95), "weight_decay": 0.3},
        schedule={"name": "cosine", "warmup_epochs": 20, "warmup_factor": 0.01},
    ),
    Recipe(
        name="efficientnet-imagenet",
        model="efficientnet_b0",
        source="optimiser and schedule: Tan and Le, EfficientNet, ICML 2019, 5.2, its rate of "
        "0.256 for 4,096 images scaled to 256; mixing: alpha 0.4, 8 workers with 32 images each, "
        "partners inside a worker's part",
        reported="nothing for these settings",
        image_size=224,
        batch_size=256,
        epochs=350,
        mixup={"alpha": 0.4},
        optimizer={
            "name": "RMSprop",
            "lr": 0.016,
            "alpha": 0.9,
            "momentum": 0.9,
            "eps": 1e-3,
            "weight_decay": 1e-5,
        },
        schedule={
            "name": "exponential",
            "gamma": 0.97,
            "every_epochs": 2.4,
            "warmup_epochs": 5,
            "warmup_factor": 0.1,
        },
    ),
    Recipe(
        name="resnet50-imagenet",
        model="resnet50",
        source="Zhang et al., mixup, ICLR 2018, 3.1",
        reported="22.1 % top-1 error after 200 epochs with alpha 0.2",
        image_size=224,
        batch_size=1024,
        epochs=200,
        mixup={"alpha": 0.2},
        optimizer={
            "name": "SGD",
            "lr": 0.4,
            "momentum": 0.9,
            "nesterov": True,
            "weight_decay": 1e-4,
        },
        schedule={
            "name": "step",
            "gamma": 0.1,
            "milestones": (60, 120, 180),
            "warmup_epochs": 5,
            "warmup_factor": 0.25,
        },
    ),
)

RECIPES: Mapping[str, Recipe] = MappingProxyType({recipe.name: recipe for recipe in _RECIPES})
"""All recipes by name."""


def recipe(name: str) -> Recipe:
    """Return a recipe.

    Parameters
    ----------
    name : str
        One of :data:`RECIPES`.

    Returns
    -------
    Recipe

    Raises
    ------
    ValueError
        No recipe has this name. The message lists the names.
    """
    require_choice("name", name, tuple(RECIPES), optional=False)
    return RECIPES[name]
