"""A run of the benchmark as bars."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from dali_mixup.cli.measure import Row

OURS, OTHERS, COPY = "#d97706", "#94a3b8", "#334155"


def draw_bars(path: Path, title: str, rows: list[Row], unit: str) -> None:
    """One bar a method, shortest is fastest; each says how many copies it costs."""
    there = [row for row in rows if row[f"median_{unit}"] is not None][::-1]
    figure = Figure(figsize=(8, 1.2 + 0.45 * len(there)), layout="constrained")
    axes = figure.subplots()
    medians = [row[f"median_{unit}"] for row in there]
    colours = [
        OURS if "dali-mixup" in row["method"] else {"copy": COPY}.get(row["method"], OTHERS)
        for row in there
    ]
    bars = axes.barh([row["method"] for row in there], medians, color=colours)
    labels = [
        f"{value:.4g}  ({row['ratio_to_copy']:.1f} x copy)"
        for value, row in zip(medians, there, strict=True)
    ]
    axes.bar_label(bars, labels, padding=4, fontsize=9)
    axes.margins(x=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel("microseconds an image (median)")
    axes.set_title(title, fontsize=9, loc="left")
    figure.savefig(path, dpi=150)
