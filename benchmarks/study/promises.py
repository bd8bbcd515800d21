"""What is promised of mixup, beside what the study saw of it.

The promises are those of Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018, and
Thulasidasan et al., "On Mixup Training: Improved Calibration and Predictive Uncertainty for Deep
Neural Networks", NeurIPS 2019.
"""

from __future__ import annotations

from typing import NamedTuple

from dali_mixup.cli.measure import Row


class Promise(NamedTuple):
    """A measure of an arm that is expected to rise (+1), to fall (-1) or to stay (0)."""

    promise: str
    arm: str
    measure: str
    direction: int


PROMISES = (
    Promise("0.5 to 2 points of top-1, without augmentation", "alpha 0.2", "accuracy", 1),
    Promise(
        "0.5 to 2 points of top-1, lightly regularised",
        "alpha 0.2, light augmentation", "accuracy", 1,
    ),
    Promise("2 to 5 points less calibration error", "alpha 0.2", "ece", -1),
    Promise("the same after temperature scaling", "alpha 0.2", "ece_scaled", -1),
    Promise("lower negative log-likelihood", "alpha 0.2", "nll", -1),
    Promise(
        "robust to 20 % of wrong labels", "alpha 1.0, 20 % wrong labels", "accuracy", 1,
    ),
    Promise(
        "robust to 40 % of wrong labels", "alpha 1.0, 40 % wrong labels", "accuracy", 1,
    ),
    Promise("robust to small attacks, FGSM of 4 levels", "alpha 1.0", "fgsm_4", 1),
    Promise("robust to small attacks, PGD of 4 levels", "alpha 1.0", "pgd_4", 1),
    Promise("less sure of images of another kind", "alpha 0.2", "ood_auroc", 1),
    Promise(
        "beside strong augmentation, a large alpha underfits",
        "alpha 2.0 + strong augmentation", "train_accuracy", -1,
    ),
    Promise(
        "targets in pairs give what soft targets give",
        "alpha 0.2, targets in pairs", "accuracy", 0,
    ),
    Promise("timm's Mixup gives what dali-mixup gives", "alpha 0.2, timm's Mixup", "accuracy", 0),
)  # fmt: skip


def promises(rows: list[Row]) -> list[Row]:
    """A row a promise: the difference in each model, and whether it is what was promised."""
    found = {(row["model"], row["arm"]): row for row in rows}
    models = sorted({row["model"] for row in rows})
    table = []
    for promise, arm, measure, direction in PROMISES:
        line: Row = {"promise": promise, "seen_in": f"{arm}: {measure}"}
        for model in models:
            row = found.get((model, arm))
            line[model] = "not tried" if row is None else verdict(row, measure, direction)
        table.append(line)
    return table


def verdict(row: Row, measure: str, direction: int) -> str:
    """Whether a difference is significant, and in which direction; or whether none shows."""
    difference, interval = row[f"{measure}_difference"], row[f"{measure}_interval"]
    figures = f"{difference:+.3g} ± {interval:.2g}"
    if direction == 0:
        agrees = abs(difference) <= interval or difference == 0
        return f"{figures}: {'reproduced' if agrees else 'differs'}"
    if not row[f"{measure}_significant"]:
        seen = difference * direction > interval
        return f"{figures}: {'seen, not significant' if seen else 'not shown'}"
    return f"{figures}: {'reproduced' if difference * direction > 0 else 'the opposite'}"
