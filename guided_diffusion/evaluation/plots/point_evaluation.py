"""The plots of an evaluation of points in the plane, each as PNG and PDF.

off_curve, distance, sliced_wasserstein, total_variation     one plot of all curves
scatter-*, per_class-*                                       one plot for each curve, with its slug in the name
"""

from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image

from guided_diffusion.evaluation.plots.curves import Curve, add_legend, against_scale, curves, empty
from guided_diffusion.evaluation.plots.scatter import pixels_of, scatter_grid
from guided_diffusion.evaluation.results import Result, Results

SHARED_PLOTS = {
    "off_curve": ("off_curve", "points further than 0.05 from the curve"),
    "distance": ("distance_mean", "mean distance to the curve"),
    "sliced_wasserstein": ("sliced_wasserstein", "sliced Wasserstein distance"),
    "total_variation": ("total_variation", "total variation to the exact density"),
}
"""The measure of each plot, with its name in words."""

MAX_SHOWN = 300
"""The largest number of points in a panel of ``scatter_of``."""


def figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Yield all plots with their names."""
    names, lines = list(results.about["class_names"]), curves(results)
    for plot, (measure, words) in SHARED_PLOTS.items():
        yield plot, against_scale(lines, measure, words, "true points")
    for curve in lines:
        yield f"scatter-{curve.slug}", plot_scatter(curve, names)
        yield f"per_class-{curve.slug}", plot_off_curve_by_class(curve, names)


def plot_scatter(curve: Curve, class_names: Sequence[str]) -> Figure:
    """Draw the samples of each class (column) at each scale (row), over the density of the data."""
    points = torch.from_numpy(np.stack([row.pictures.points for row in curve.rows]))
    rows = [f"w = {scale:g}" for scale in curve.scales]
    densities = curve.rows[0].pictures.densities
    return scatter_grid(points, densities, rows, class_names, range(len(class_names)))


def plot_off_curve_by_class(curve: Curve, class_names: Sequence[str]) -> Figure:
    """Plot the share of points off their curve against scale, for each class."""
    figure, axes = empty()
    for label, name in enumerate(class_names):
        shares = [float(row.per_class[label]["off_curve"]) for row in curve.rows]
        axes.plot(curve.scales, shares, "o-", markersize=4, color=matplotlib.colormaps["tab10"](label % 10), label=name)
    axes.set(title=curve.label, xlabel="guidance scale w", ylabel=SHARED_PLOTS["off_curve"][1])
    axes.set_ylim(bottom=0)
    return add_legend(figure)


def scatter_of(row: Result, class_names: Sequence[str]) -> Image.Image:
    """Return a picture of the samples of a row, with a panel for each class."""
    points = torch.from_numpy(row.pictures.points[None, :, :MAX_SHOWN])
    figure = scatter_grid(points, row.pictures.densities, [""], class_names, range(len(class_names)))
    return Image.fromarray(pixels_of(figure).numpy())
