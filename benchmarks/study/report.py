"""Means over seeds, differences paired by seed with 95 % intervals, as rows, a table, pictures.

    python -m benchmarks.study.report study.json FOLDER

draws the pictures of a recorded study.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from scipy.stats import t

from benchmarks.study.arms import ALPHAS, CURVE
from dali_mixup.cli.measure import Row

SHARES = (
    "accuracy", "train_accuracy", "ece", "ece_scaled", "overconfidence",
    "fgsm_4", "fgsm_8", "pgd_4", "pgd_8",
    "rotation_10", "rotation_20", "rotation_30", "blur_1", "blur_2", "blur_4",
    "noise_16", "noise_32", "noise_64", "contrast_0.6", "contrast_0.4", "contrast_0.2",
    "ood_auroc",
)  # fmt: skip
"""Shown in percent, and their differences in points."""

OTHERS = ("nll", "nll_scaled", "temperature")
NOT_COMPARED = ("overconfidence", "temperature")
LEVEL = 0.05
INK, OURS, SECOND, PALE = "#334155", "#d97706", "#0e7490", "#94a3b8"
COLOURS = (OURS, SECOND, INK, PALE)


def summary(results: list[Row]) -> list[Row]:
    """A row an arm and model.

    Means, differences from the baseline as ``<name>_difference`` with half of the 95 % interval as
    ``<name>_interval``, and ``<name>_significant``: at 5 %, by Holm's correction for all the
    differences of this measure in the study.
    """
    runs: dict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
    for result in results:
        runs[result["model"], result["arm"]][result["seed"]] = result
    rows = []
    for (model, _), by_seed in runs.items():
        some = next(iter(by_seed.values()))
        row: Row = {key: some[key] for key in ("model", "arm", "against", "train_images")}
        row["runs"] = len(by_seed)
        for name in (*SHARES, *OTHERS):
            unit = 100 if name in SHARES else 1
            row[name] = rounded(unit * np.mean([run[name] for run in by_seed.values()]), name)
            base = runs.get((model, some["against"]), {})
            if base and name not in NOT_COMPARED:
                row |= compared(name, [unit * (run[name] - base[seed][name])
                                       for seed, run in by_seed.items()])  # fmt: skip
        rows.append(row)
    for name in (*SHARES, *OTHERS):
        mark_significant(rows, name)
    return sorted(rows, key=lambda row: row["model"])


def rounded(value: Any, name: str) -> float:
    return round(float(value), 2 if name in SHARES else 4)


def compared(name: str, differences: list[float]) -> Row:
    """The mean, half of its 95 % interval, and the p of a paired t test."""
    mean, freedom = np.mean(differences), len(differences) - 1
    error = np.std(differences, ddof=1) / np.sqrt(len(differences))
    p = 2 * t.sf(abs(mean) / error, freedom) if error else float(mean == 0)
    return {
        f"{name}_difference": rounded(mean, name),
        f"{name}_interval": rounded(t.ppf(1 - LEVEL / 2, freedom) * error, name),
        f"{name}_p": float(f"{p:.3g}"),
    }


def mark_significant(rows: list[Row], name: str) -> None:
    """Holm: the k-th smallest of n p's is below 5 % / (n - k + 1), and so are all before it."""
    tested = sorted((row for row in rows if f"{name}_p" in row), key=lambda row: row[f"{name}_p"])
    holds = True
    for before, row in enumerate(tested):
        holds = holds and row[f"{name}_p"] <= LEVEL / (len(tested) - before)
        row[f"{name}_significant"] = holds


def table(rows: list[Row]) -> str:
    lines: list[str] = []
    shown = ("accuracy", "ece", "nll", "fgsm_8", "noise_32", "ood_auroc")
    head = f"{'arm':40}{'train':>7}" + "".join(f"{name:>24}" for name in shown)
    for model in dict.fromkeys(row["model"] for row in rows):
        of_model = [row for row in rows if row["model"] == model]
        lines += ["", f"{model}; * significant by Holm's correction", head]
        for row in of_model:
            cells = "".join(f"{with_difference(row, name):>24}" for name in shown)
            lines.append(f"{row['arm']:40}{row['train_accuracy']:7.1f}{cells}")
    return "\n".join(lines)


def with_difference(row: Row, name: str) -> str:
    if f"{name}_difference" not in row:
        return f"{row[name]:.4g}"
    star = "*" if row[f"{name}_significant"] else ""
    return (
        f"{row[name]:.4g} ({row[f'{name}_difference']:+.3g} +- {row[f'{name}_interval']:.2g}){star}"
    )


def draw(folder: Path, results: list[Row], rows: list[Row]) -> None:
    """How strong; calibration; the course of a training."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, figure in {
        "study-alpha": of_alpha(rows),
        "study-calibration": of_calibration(results),
        "study-curves": of_curves(results),
    }.items():
        figure.savefig(folder / f"{name}.png", dpi=110)


def of_alpha(rows: list[Row]) -> Figure:
    """Top-1 and calibration error against alpha, and top-1 against the training images."""
    models = by_model(rows)
    sizes = [f", {size} images" for size in CURVE if any(f"alpha 0.2, {size} images" in found
                                                         for found in models.values())]  # fmt: skip
    figure, (gain, error, *of_sizes) = panels(3 if sizes else 2)
    for colour, (model, found) in zip(COLOURS, models.items(), strict=False):
        swept = [alpha for alpha in ALPHAS if f"alpha {alpha}" in found]
        for axes, name in ((gain, "accuracy"), (error, "ece")):
            points = [found[f"alpha {alpha}"] for alpha in swept]
            with_intervals(axes, [*map(str, swept)], points, name, colour, model)
        points = [found[arm] for size in ("", *sizes) if (arm := f"alpha 0.2{size}") in found]
        for axes in of_sizes if len(points) > 1 else ():
            at = [str(row["train_images"]) for row in points]
            with_intervals(axes, at, points, "accuracy", colour, model)
            axes.set(title="top-1, alpha 0.2 less without, points", xlabel="training images")
    gain.set(title="top-1 less top-1 without mixup, points", xlabel="alpha")
    error.set(title="calibration error less that without, points", xlabel="alpha")
    return figure


def with_intervals(
    axes: Axes, at: list[str], rows: list[Any], name: str, colour: str, label: str
) -> None:
    axes.axhline(0, color=PALE, linewidth=1)
    axes.errorbar(
        at, [row[f"{name}_difference"] for row in rows], [row[f"{name}_interval"] for row in rows],
        color=colour, marker="o", capsize=4, label=label,
    )  # fmt: skip
    axes.legend(frameon=False, fontsize=8)


def of_calibration(results: list[Row]) -> Figure:
    """Reliability of each model, without mixup and with."""
    models = sorted({result["model"] for result in results})
    figure, axes = panels(len(models))
    for panel, model in zip(axes, models, strict=True):
        panel.plot([0, 1], [0, 1], color=PALE, linewidth=1)
        for arm, colour in zip(("no mixup", "alpha 0.2", "alpha 1.0"), COLOURS, strict=False):
            bins = np.sum([run["reliability"] for run in runs_of(results, model, arm)], axis=0)
            used = bins[:, 0] >= 30
            panel.plot(
                bins[used, 1] / bins[used, 0], bins[used, 2] / bins[used, 0],
                color=colour, marker=".", label=arm,
            )  # fmt: skip
        panel.set(title=f"{model}: accuracy of predictions", xlabel="confidence")
        panel.legend(frameon=False, fontsize=8)
    return figure


def of_curves(results: list[Row]) -> Figure:
    """Accuracy over the epochs, alone and beside strong augmentation."""
    arms = ("no mixup", "alpha 0.2", "alpha 1.0", "alpha 2.0")
    shown = [
        (model, suffix)
        for suffix in ("", " + strong augmentation")
        for model in sorted({result["model"] for result in results})
        if runs_of(results, model, f"no mixup{suffix}")
    ]
    figure, axes = panels(len(shown))
    for panel, (model, suffix) in zip(axes, shown, strict=True):
        for arm, colour in zip(arms, COLOURS, strict=True):
            curves = [run["curve"] for run in runs_of(results, model, f"{arm}{suffix}")]
            for name, style in (("train_accuracy", "--"), ("accuracy", "-")) if curves else ():
                epochs = [point["epoch"] for point in curves[0]]
                means = np.mean([[point[name] for point in curve] for curve in curves], axis=0)
                label = f"{arm}, {'training' if style == '--' else 'test'}"
                panel.plot(epochs, 100 * means, style, color=colour, label=label)
        panel.set(title=f"{model}{suffix}: accuracy, %", xlabel="epoch")
        panel.legend(frameon=False, fontsize=7)
    return figure


def runs_of(results: list[Row], model: str, arm: str) -> list[Row]:
    return [run for run in results if (run["model"], run["arm"]) == (model, arm)]


def panels(count: int = 3) -> tuple[Figure, Iterable[Axes]]:
    columns = count if count < 4 else 2
    rows = -(-count // columns)
    figure = Figure(figsize=(4.4 * columns, 3.8 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for each in axes:
        each.spines[["top", "right"]].set_visible(False)
    return figure, axes


def by_model(rows: list[Row]) -> dict[str, dict[str, Row]]:
    found: dict[str, dict[str, Row]] = defaultdict(dict)
    for row in rows:
        found[row["model"]][row["arm"]] = row
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("json", type=Path)
    parser.add_argument("folder", type=Path)
    flags = parser.parse_args()
    recorded = json.loads(flags.json.read_text())["rows"]
    results = [row["run"] for row in recorded if "run" in row]
    draw(flags.folder, results, summary(results))


if __name__ == "__main__":
    main()
