"""The arms of the study, each with the arm it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ALPHAS = (0.1, 0.2, 0.4, 1.0)
CURVE = (4000, 16000)
"""Training images of the curve, beside the main number."""

AUGMENTATIONS: dict[str, dict[str, Any]] = {
    "none": {"random_area": (1.0, 1.0), "random_aspect_ratio": (1.0, 1.0)},
    "light": {"random_area": (0.7, 1.0), "mirror_probability": 0.5},
    "strong": {
        "random_area": (0.4, 1.0),
        "mirror_probability": 0.5,
        "augment": "randaugment",
        "randaugment": (2, 9),
    },
}


class Arm(NamedTuple):
    """One way to train.

    Attributes
    ----------
    mixup : dict
        Settings of :class:`dali_mixup.Mixup`.
    noise : int
        Percentage of training labels that are replaced.
    augmentation : {"none", "light", "strong"}
    train_size : int, optional
        None: the main number of training images.
    by_timm : bool
        ``timm.data.Mixup`` mixes, with the same alpha.
    """

    name: str
    against: str | None
    mixup: Mapping[str, Any]
    noise: int = 0
    augmentation: str = "none"
    train_size: int | None = None
    by_timm: bool = False


PLAIN = Arm("no mixup", None, {"alpha": 0.0})
QUICK = ("no mixup", "alpha 0.2", "alpha 1.0")


def arms_of(*, quick: bool) -> list[Arm]:
    """All of them, or those of the main claims."""
    arms = [
        PLAIN,
        *(Arm(f"alpha {alpha}", PLAIN.name, {"alpha": alpha}) for alpha in ALPHAS),
        *kinds(),
        *family(", light augmentation", (0.2, 1.0), augmentation="light"),
        *family(" + strong augmentation", (0.2, 1.0, 2.0), augmentation="strong"),
        *family(", 20 % wrong labels", (0.2, 1.0), noise=20),
        *family(", 40 % wrong labels", (0.2, 1.0), noise=40),
        *family(" + label smoothing", (0.2, 1.0), label_smoothing=0.1),
    ]
    return [arm for arm in arms if arm.name in QUICK] if quick else arms


def curve() -> list[Arm]:
    """The number of training images."""
    return [arm for size in CURVE for arm in family(f", {size} images", (0.2,), train_size=size)]


def kinds() -> list[Arm]:
    """Other ways to mix, and others' code, beside the same alpha."""
    ours = "alpha 0.2"
    return [
        Arm("CutMix 1.0", PLAIN.name, {"alpha": 0.0, "cutmix_alpha": 1.0}),
        Arm("mixup 0.8 and CutMix 1.0", PLAIN.name, {"alpha": 0.8, "cutmix_alpha": 1.0}),
        Arm("alpha 0.2, elem", ours, {"alpha": 0.2, "mode": "elem"}),
        Arm("alpha 0.2, targets in pairs", ours, {"alpha": 0.2, "targets": "pairs"}),
        Arm("alpha 0.2, timm's Mixup", ours, {"alpha": 0.2}, by_timm=True),
    ]


def family(
    suffix: str, alphas: tuple[float, ...], *, label_smoothing: float = 0.0, **options: Any
) -> list[Arm]:
    """A baseline of its own, and mixup beside it."""
    base = f"no mixup{suffix}"
    smoothing = {"label_smoothing": label_smoothing}
    return [
        Arm(base, None, {"alpha": 0.0, **smoothing}, **options),
        *(Arm(f"alpha {each}{suffix}", base, {"alpha": each, **smoothing}, **options)
          for each in alphas),
    ]  # fmt: skip
