"""The arms of the study, each with the arm it is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

ALPHAS = (0.1, 0.2, 0.4, 1.0, 2.0)
SOME_ALPHAS = (0.2, 1.0, 2.0)
STRONG = (2, 9)


class Arm(NamedTuple):
    """One way to train; `noise` is the percentage of training labels that are replaced.

    Images are cropped lightly, to 70 % of their area and more, but for `crop` of "none".
    """

    name: str
    against: str | None
    mixup: Mapping[str, Any]
    noise: int = 0
    randaugment: tuple[int, int] | None = None
    crop: str = "light"


PLAIN = Arm("no mixup", None, {"alpha": 0.0})


def arms_of(*, quick: bool) -> list[Arm]:
    """All of them, or those of the main claims."""
    if quick:
        return [PLAIN, *(mixed(alpha) for alpha in (0.2, 1.0)), *noisy(40)]
    return [
        PLAIN,
        *(mixed(alpha) for alpha in ALPHAS),
        *uncropped(),
        *regularised("smoothing", label_smoothing=0.1),
        *regularised("smoothing, RandAugment", label_smoothing=0.1, randaugment=STRONG),
        *noisy(20),
        *noisy(40),
        *kinds(),
    ]


def mixed(alpha: float) -> Arm:
    return Arm(f"alpha {alpha}", PLAIN.name, {"alpha": alpha})


def uncropped() -> list[Arm]:
    """Without any augmentation."""
    base = "no mixup, no crops"
    return [
        Arm(base, PLAIN.name, {"alpha": 0.0}, crop="none"),
        *(
            Arm(f"alpha {alpha}, no crops", base, {"alpha": alpha}, crop="none")
            for alpha in (0.2, 1.0)
        ),
    ]


def regularised(
    name: str, *, label_smoothing: float = 0.0, randaugment: tuple[int, int] | None = None
) -> list[Arm]:
    base = f"no mixup + {name}"
    settings = {"label_smoothing": label_smoothing}
    return [
        Arm(base, PLAIN.name, {"alpha": 0.0, **settings}, randaugment=randaugment),
        *(
            Arm(f"alpha {alpha} + {name}", base, {"alpha": alpha, **settings}, 0, randaugment)
            for alpha in SOME_ALPHAS
        ),
    ]


def noisy(percentage: int) -> list[Arm]:
    base = f"no mixup, {percentage} % wrong labels"
    return [
        Arm(base, None, {"alpha": 0.0}, percentage),
        *(
            Arm(f"alpha {alpha}, {percentage} % wrong labels", base, {"alpha": alpha}, percentage)
            for alpha in (0.2, 1.0)
        ),
    ]


def kinds() -> list[Arm]:
    """All with alpha 1, where they differ most."""
    settings: dict[str, dict[str, Any]] = {
        "CutMix": {"alpha": 0.0, "cutmix_alpha": 1.0},
        "mixup and CutMix": {"alpha": 1.0, "cutmix_alpha": 1.0},
        "elem": {"alpha": 1.0, "mode": "elem"},
        "pair": {"alpha": 1.0, "mode": "pair"},
        "flip": {"alpha": 1.0, "pairing": "flip"},
        "roll": {"alpha": 1.0, "pairing": "roll"},
        "derangement": {"alpha": 1.0, "pairing": "derangement"},
    }
    return [Arm(f"alpha 1.0, {name}", PLAIN.name, mixup) for name, mixup in settings.items()]
