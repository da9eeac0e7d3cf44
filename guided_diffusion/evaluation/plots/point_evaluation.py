"""The plots of an evaluation of points in the plane, each as PNG and PDF.

off_curve, distance, sliced_wasserstein, total_variation     one plot of all curves
scatter-*, per_class-*                                       one plot for each curve, with its slug in the name
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from PIL import Image

from guided_diffusion.evaluation.plots.curves import (
    Curve,
    add_legend,
    against_scale,
    curves,
    draw_floors,
    empty,
    plot_names,
    save_figure,
)
from guided_diffusion.evaluation.plots.scatter import pixels_of, scatter_grid
from guided_diffusion.evaluation.results import Result, Results

SHARED_PLOTS = {
    "off_curve": ("off_curve", "points further than 0.05 from the curve"),
    "distance": ("distance_mean", "mean distance to the curve"),
    "sliced_wasserstein": ("sliced_wasserstein", "sliced Wasserstein distance"),
    "total_variation": ("total_variation", "total variation to the exact density"),
}
"""The measure of each plot, with its name in words."""


PLOTS_OF_CURVE = ("scatter", "per_class")


MAX_SHOWN = 300
"""The largest number of points in a panel of ``scatter_of``."""


def save_point_plots(results: Results, folder: Path) -> dict[str, Path]:
    """Write all plots to ``folder/plots``; return the paths of the PNGs by name."""
    names, lines, plots = list(results.about["class_names"]), curves(results), folder / "plots"
    for plot, (measure, words) in SHARED_PLOTS.items():
        save_against_scale(lines, measure, words, plots / plot)
    for curve in lines:
        save_scatter(curve, names, plots / f"scatter-{curve.slug}")
        save_off_curve_by_class(curve, names, plots / f"per_class-{curve.slug}")
    return {name: plots / f"{name}.png" for name in plot_names(lines, tuple(SHARED_PLOTS), PLOTS_OF_CURVE)}


def save_against_scale(lines: Sequence[Curve], measure: str, words: str, path: Path) -> None:
    """Plot a measure against scale, with that of true points as a dashed line."""
    figure, axes = against_scale(lines, measure)
    draw_floors(axes, lines, measure, "true points")
    axes.set(ylabel=words)
    axes.set_ylim(bottom=0)
    add_legend(figure)
    save_figure(figure, path)


def save_scatter(curve: Curve, class_names: Sequence[str], path: Path) -> None:
    """Draw the samples of each class (column) at each scale (row), over the density of the data."""
    points = torch.from_numpy(np.stack([row.pictures.points for row in curve.rows]))
    rows = [f"w = {scale:g}" for scale in curve.scales]
    densities = curve.rows[0].pictures.densities
    save_figure(scatter_grid(points, densities, rows, class_names, range(len(class_names))), path)


def save_off_curve_by_class(curve: Curve, class_names: Sequence[str], path: Path) -> None:
    """Plot the share of points off their curve against scale, for each class."""
    figure, axes = empty()
    for label, name in enumerate(class_names):
        shares = [float(row.per_class[label]["off_curve"]) for row in curve.rows]
        axes.plot(curve.scales, shares, "o-", markersize=4, color=matplotlib.colormaps["tab10"](label % 10), label=name)
    axes.set(title=curve.name, xlabel="guidance scale w", ylabel=SHARED_PLOTS["off_curve"][1])
    axes.set_ylim(bottom=0)
    add_legend(figure)
    save_figure(figure, path)


def scatter_of(row: Result, class_names: Sequence[str]) -> Image.Image:
    """Return a picture of the samples of a row, with a panel for each class."""
    points = torch.from_numpy(row.pictures.points[None, :, :MAX_SHOWN])
    figure = scatter_grid(points, row.pictures.densities, [""], class_names, range(len(class_names)))
    return Image.fromarray(pixels_of(figure).numpy())
