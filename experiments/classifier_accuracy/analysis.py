"""Plot judge accuracy at high guidance scales, with x0 clipped and not clipped, beside a published curve.

    python experiments/classifier_accuracy/analysis.py SWEEP [--noise SWEEP] [--few 200] [--output-dir FOLDER]

SWEEP is the folder of a sweep of evaluations over ``threshold=clip,none``; ``--noise`` takes that of a network that
predicts the noise. Writes ``accuracy.csv``, ``pixel_variance.csv``, ``accuracy.png``, ``probability.png``,
``histograms.png`` and ``pixel_variance.png``, and with ``--noise`` also ``noise.csv``.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from guided_diffusion.evaluation.metrics.shares import wilson
from guided_diffusion.evaluation.plots.curves import Curve, draw_against_scale, spread_scales
from guided_diffusion.evaluation.results import Result, read, write_csv

PUBLISHED = {0: 0.7, 0.5: 0.85, 1: 0.935, 2: 0.97, 3: 0.94, 5: 0.84, 7.5: 0.655, 10: 0.385, 20: 0.15}
"""The accuracies of mnist-diffusion-cfg-analysis, by its scale s = w - 1."""
PUBLISHED_SAMPLES = 200
THRESHOLDS = {"clip": "x0 clipped", "none": "x0 not clipped"}
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
TICKS = (1, 1.5, 2, 3, 5, 8.5, 11, 16, 21)
NOISE_COLUMNS = (
    "threshold", "scale", "accuracy", "accuracy_low", "accuracy_high", "fld", "fld_floor", "saturation", "num_samples",
)  # fmt: skip
HISTOGRAMS = (1.0, 2.0, 6.0, 21.0)
"""The scales whose judge probabilities are drawn, if they were sampled."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--noise", type=Path, help="folder of the sweep of a network that predicts the noise")
    parser.add_argument("--few", type=int, default=PUBLISHED_SAMPLES, help="size of the smaller set: the first samples")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/classifier_accuracy"))
    arguments = parser.parse_args()

    results = read(arguments.sweep)
    curves = {
        name: sorted((row for row in results.rows if row.options["threshold"] == name), key=lambda row: row.scale)
        for name in THRESHOLDS
    }
    rows = [row for rows in curves.values() for row in rows]
    write_csv(arguments.output_dir / "accuracy.csv", [line(row, arguments.few) for row in rows])
    variances = [
        {"threshold": row.options["threshold"], "scale": row.scale, "class": one["class_name"]}
        | {"pixel_variance": float(one["pixel_variance"])}
        for row in rows
        for one in row.per_class
    ]
    write_csv(arguments.output_dir / "pixel_variance.csv", variances)

    if arguments.noise:
        found = [row.row for row in read(arguments.noise).rows]
        write_csv(arguments.output_dir / "noise.csv", [{name: row[name] for name in NOISE_COLUMNS} for row in found])

    def accuracies(axes: Axes, count: int) -> None:
        lines = [
            Curve(words, "", [with_accuracy(row, count) for row in curves[name]]) for name, words in THRESHOLDS.items()
        ]
        draw_against_scale(axes, [*lines, published(rows[0])], "accuracy")
        axes.axhline(results.about["judge_ceiling"], linestyle="--", color="grey", label="real test images")
        axes.set(title=f"{count:,} samples", xlim=(0.95, 22), ylim=(0, 1.02))
        spread_scales(axes, TICKS)

    def of_threshold(axes: Axes, threshold: str, draw: Callable[[Axes, Sequence[Result]], None]) -> None:
        draw(axes, curves[threshold])
        axes.set_title(THRESHOLDS[threshold])

    counts = (arguments.few, rows[0].num_samples)
    panels = [partial(accuracies, count=count) for count in counts]
    save_panels(panels, "judge accuracy", arguments.output_dir / "accuracy.png")
    for name, draw, words in (
        ("probability", draw_quantiles, "judge's probability of the right class"),
        ("histograms", draw_histograms, "share of samples"),
        ("pixel_variance", draw_variances, "variance of a pixel within a class"),
    ):
        panels = [partial(of_threshold, threshold=threshold, draw=draw) for threshold in THRESHOLDS]
        save_panels(panels, words, arguments.output_dir / f"{name}.png")


def save_panels(panels: Sequence[Callable[[Axes], None]], quantity: str, path: Path) -> None:
    """Draw the panels side by side, on the same vertical axis."""
    figure = Figure(figsize=(10, 4), dpi=110, layout="constrained")
    for axes, draw in zip(figure.subplots(1, len(panels), sharey=True), panels, strict=True):
        draw(axes)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel(quantity)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=5, frameon=False)
    figure.savefig(path)


def line(row: Result, few: int) -> dict[str, Any]:
    """Return a row of ``accuracy.csv``."""
    values: dict[str, Any] = {"threshold": row.options["threshold"], "scale": row.scale}
    for count in (few, row.num_samples):
        interval = with_accuracy(row, count).measured["accuracy"]
        values |= {f"accuracy_{count}{end}": value for end, value in zip(("", "_low", "_high"), interval, strict=True)}
    probabilities = row.pictures.probabilities
    values["probability_mean"] = float(probabilities.mean())
    values |= {f"probability_q{100 * q:02.0f}": float(np.quantile(probabilities, q)) for q in QUANTILES}
    return values | {name: row.measured[name].value for name in ("saturation", "fld", "diversity")}


def with_accuracy(row: Result, count: int) -> Result:
    """Return the row with the accuracy of its first ``count`` samples."""
    right = row.pictures.predictions[:count] == row.pictures.labels[:count]
    return replace(row, num_samples=count, measured={"accuracy": wilson(float(right.mean()), count)})


def published(like: Result) -> Curve:
    rows = [
        replace(like, scale=1 + s, measured={"accuracy": wilson(accuracy, PUBLISHED_SAMPLES)})
        for s, accuracy in PUBLISHED.items()
    ]
    return Curve(f"published, {PUBLISHED_SAMPLES} samples", "", rows)


def draw_quantiles(axes: Axes, rows: Sequence[Result]) -> None:
    """Draw the mean, and bands from the 5th to the 95th and from the 25th to the 75th percentile."""
    scales = [row.scale for row in rows]
    probabilities: NDArray[np.float32] = np.stack([row.pictures.probabilities for row in rows])
    lowest, low, median, high, highest = np.quantile(probabilities, QUANTILES, axis=1)
    axes.fill_between(scales, lowest, highest, color="C0", alpha=0.15, linewidth=0, label="5 to 95 %")
    axes.fill_between(scales, low, high, color="C0", alpha=0.35, linewidth=0, label="25 to 75 %")
    axes.plot(scales, median, color="C0", label="median")
    axes.plot(scales, probabilities.mean(1), color="black", marker="o", markersize=3, label="mean")
    axes.set(xlabel="guidance scale w", ylim=(-0.02, 1.02))
    spread_scales(axes, TICKS)


def draw_histograms(axes: Axes, rows: Sequence[Result]) -> None:
    shown = [row for row in rows if row.scale in HISTOGRAMS]
    shares = [np.full(row.num_samples, 1 / row.num_samples) for row in shown]
    names = [f"w = {row.scale:g}" for row in shown]
    axes.hist(
        [row.pictures.probabilities for row in shown], np.linspace(0, 1, 11).tolist(), weights=shares, label=names
    )
    axes.set_yscale("log")
    axes.set_xlabel("judge's probability of the right class")


def draw_variances(axes: Axes, rows: Sequence[Result]) -> None:
    """Draw a line for each class."""
    for index, one in enumerate(rows[0].per_class):
        values = [float(row.per_class[index]["pixel_variance"]) for row in rows]
        colour = matplotlib.colormaps["tab10"](index % 10)
        axes.plot([row.scale for row in rows], values, ".-", color=colour, label=one["class_name"])
    axes.set_xlabel("guidance scale w")
    spread_scales(axes, TICKS)


if __name__ == "__main__":
    main()
