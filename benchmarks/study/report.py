"""Means over seeds, differences paired by seed with 95 % intervals, as rows, a table, a picture."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import t

from benchmarks.study.arms import ALPHAS
from dali_mixup.cli.measure import Row

PERCENTAGES = (
    "accuracy",
    "train_accuracy",
    "calibration_error",
    "overconfidence",
    "fgsm_accuracy",
    "noise_accuracy",
    "blur_accuracy",
)
DIFFERENCES = tuple(
    name for name in PERCENTAGES if name not in ("train_accuracy", "overconfidence")
)
INK, OURS, SECOND, PALE = "#334155", "#d97706", "#0e7490", "#94a3b8"


def summary(results: list[Row]) -> list[Row]:
    """A row an arm and model: means in percent, and ``<name>_difference`` in points with "+-"."""
    runs: dict[tuple[str, str], dict[int, Row]] = defaultdict(dict)
    for result in results:
        runs[result["model"], result["arm"]][result["seed"]] = result
    rows = []
    for (model, arm), by_seed in runs.items():
        some = next(iter(by_seed.values()))
        row: Row = {"model": model, "arm": arm, "against": some["against"], "runs": len(by_seed)}
        for name in PERCENTAGES:
            row[name] = round(100 * float(np.mean([run[name] for run in by_seed.values()])), 2)
        if some["against"] is not None:
            base = runs[model, some["against"]]
            for name in DIFFERENCES:
                differences = [100 * (run[name] - base[s][name]) for s, run in by_seed.items()]
                row[f"{name}_difference"], row[f"{name}_interval"] = mean_and_interval(differences)
        epochs = [run["epochs_to_loss"] or np.inf for run in by_seed.values()]
        row["reached_loss"] = f"{int(np.isfinite(epochs).sum())}/{len(epochs)}"
        row["epochs_to_loss"] = float(np.median(epochs)) if np.isfinite(np.median(epochs)) else None
        rows.append(row)
    return sorted(rows, key=lambda row: row["model"])


def mean_and_interval(values: list[float]) -> tuple[float, float]:
    """The mean, and half of its 95 % interval."""
    error = np.std(values, ddof=1) / np.sqrt(len(values))
    return round(float(np.mean(values)), 2), round(float(t.ppf(0.975, len(values) - 1) * error), 2)


def table(rows: list[Row]) -> str:
    head = (
        f"{'arm':42}{'top-1':>7}{'difference':>15}{'train':>7}{'ECE':>6}{'difference':>15}"
        f"{'conf-acc':>9}{'FGSM':>7}{'noise':>7}{'blur':>7}{'learned':>9}"
    )
    lines: list[str] = []
    model = None
    for row in rows:
        if row["model"] != model:
            model = row["model"]
            lines += ["", f"{model}, {row['runs']} seeds", head]
        epochs = "never" if row["epochs_to_loss"] is None else f"{row['epochs_to_loss']:.0f}"
        lines.append(
            f"{row['arm']:42}{row['accuracy']:7.2f}{difference(row, 'accuracy'):>15}"
            f"{row['train_accuracy']:7.1f}{row['calibration_error']:6.1f}"
            f"{difference(row, 'calibration_error'):>15}{row['overconfidence']:+9.1f}"
            f"{row['fgsm_accuracy']:7.1f}{row['noise_accuracy']:7.1f}{row['blur_accuracy']:7.1f}"
            f"{epochs:>9}"
        )
    return "\n".join(lines)


def difference(row: Row, name: str) -> str:
    if f"{name}_difference" not in row:
        return ""
    return f"{row[f'{name}_difference']:+.2f} +- {row[f'{name}_interval']:.2f}"


def draw(path: Path, results: list[Row], rows: list[Row]) -> None:
    """Four panels: gain and alpha, calibration, wrong labels, where underfitting begins."""
    figure = Figure(figsize=(11, 8), layout="constrained")
    (gain, reliability), (noise, underfitting) = figure.subplots(2, 2)
    found = {(row["model"], row["arm"]): row for row in rows}
    models = sorted({row["model"] for row in rows})
    colours = dict(zip(models, (OURS, SECOND, INK, PALE), strict=False))

    for model in models:
        for suffix, style in (("", "-"), (", no crops", "--")):
            swept = alphas_in(found, model, suffix)
            points = [found[model, f"alpha {alpha}{suffix}"] for alpha in swept]
            if points:
                gain.errorbar(
                    [*map(str, swept)],
                    [row["accuracy_difference"] for row in points],
                    [row["accuracy_interval"] for row in points],
                    color=colours[model], linestyle=style, marker="o", capsize=4,
                    label=f"{model}{suffix}",
                )  # fmt: skip
    gain.axhline(0, color=PALE, linewidth=1)
    gain.set(title="top-1 with mixup less top-1 without, points", xlabel="alpha")

    reliability.plot([0, 1], [0, 1], color=PALE, linewidth=1)
    for model in models:
        for arm, style in (("no mixup", "--"), ("alpha 0.2", "-"), ("alpha 1.0", ":")):
            bins = np.sum([r["reliability"] for r in results
                           if (r["model"], r["arm"]) == (model, arm)], axis=0)  # fmt: skip
            used = bins[:, 0] >= 30
            reliability.plot(
                bins[used, 1] / bins[used, 0], bins[used, 2] / bins[used, 0],
                style, color=colours[model], marker=".", label=f"{model}, {arm}",
            )  # fmt: skip
    reliability.set(title="accuracy of predictions of a confidence", xlabel="confidence")

    labels = [row["arm"] for row in rows if "wrong labels" in row["arm"]]
    labels = list(dict.fromkeys(labels))
    for i, model in enumerate(models):
        noise.barh(
            np.arange(len(labels)) + 0.38 * i, [found[model, arm]["accuracy"] for arm in labels],
            height=0.36, color=colours[model], label=model,
        )  # fmt: skip
    noise.set_yticks(np.arange(len(labels)) + 0.19, labels, fontsize=8)
    noise.invert_yaxis()
    noise.set(title="top-1 where training labels were replaced, %", xlim=(0, 100))

    strong = " + smoothing, RandAugment"
    for model in models:
        for suffix, style in (("", "-"), (strong, "--")):
            swept = alphas_in(found, model, suffix)
            if swept:
                underfitting.plot(
                    ["0", *map(str, swept)],
                    [found[model, f"no mixup{suffix}"]["train_accuracy"]]
                    + [found[model, f"alpha {a}{suffix}"]["train_accuracy"] for a in swept],
                    style, color=colours[model], marker="o", label=f"{model}{suffix}",
                )  # fmt: skip
    underfitting.set(title="accuracy on the training images, %", xlabel="alpha")

    for axes in (gain, reliability, noise, underfitting):
        axes.spines[["top", "right"]].set_visible(False)
        if axes is not noise:  # its colours are the others'
            axes.legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=110)


def alphas_in(found: dict[tuple[str, str], Row], model: str, suffix: str) -> list[float]:
    return [alpha for alpha in ALPHAS if (model, f"alpha {alpha}{suffix}") in found]
