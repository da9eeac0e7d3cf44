"""The plots of an evaluation of images, each as PNG and PDF. Pixels are on the fixed range [-1, 1].

accuracy, frechet_distance, precision_recall                 one plot of all curves
per_class-*, confusion-*, strip-*, means-*, uncertain-*      one plot for each curve, with its slug in the name
"""

from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from guided_diffusion.evaluation.plots.curves import (
    Curve,
    add_legend,
    against_scale,
    colours,
    curves,
    draw_against_scale,
    empty,
    percent_axis,
)
from guided_diffusion.evaluation.plots.image_grid import grid, labelled_grid, literal
from guided_diffusion.evaluation.results import Result, Results

MAX_COLUMNS = 20
"""The largest number of images in a row, and of classes that have a name or a colour of their own."""

MAX_UNCERTAIN = 8

MAX_ASPECT = 4
"""The largest width of an uncertain sample, in units of its height; wider samples are drawn smaller."""

TEXT_SIZE = (32, 8)
"""The largest width and height of the name of a scale beside its point, in points."""

CORNERS = ((4, 4), (4, -10), (-30, 4), (-30, -10))
"""The offsets of such a name from its point, in points, the best one first."""


def class_accuracies(row: Result) -> NDArray[np.float64]:
    """Return the accuracy of each class, nan for a class without samples."""
    return np.diag(_shares(row.pictures.confusion))


def figures(results: Results) -> Iterator[tuple[str, Figure]]:
    """Yield all plots with their names."""
    names, lines = list(results.about["class_names"]), curves(results)
    yield "accuracy", plot_accuracy(lines, float(results.about["judge_ceiling"]))
    yield "frechet_distance", plot_frechet_distance(lines)
    yield "precision_recall", plot_precision_recall(lines)
    for curve in lines:
        yield f"per_class-{curve.slug}", plot_per_class(curve, names)
        yield f"confusion-{curve.slug}", plot_confusion(curve, names)
        yield f"strip-{curve.slug}", plot_strip(curve)
        yield f"means-{curve.slug}", plot_means(curve, names)
        yield f"uncertain-{curve.slug}", plot_uncertain(curve, names)


def plot_accuracy(lines: Sequence[Curve], ceiling: float) -> Figure:
    """Plot judge accuracy against scale, with the accuracy on real images as a dashed line."""
    figure, axes = empty()
    draw_against_scale(axes, lines, "accuracy")
    axes.axhline(ceiling, linestyle="--", color="grey", label=f"ceiling: real test images, {ceiling:.1%}")
    axes.set(ylabel="judge accuracy")
    percent_axis(axes)
    return add_legend(figure)


def plot_frechet_distance(lines: Sequence[Curve]) -> Figure:
    """Plot Fréchet distance against scale, with the distance of two sets of real images as a dashed line."""
    floor = "floor: real images against real images"
    return against_scale(lines, "fld", "Fréchet distance in the judge's features", floor)


def plot_precision_recall(lines: Sequence[Curve]) -> Figure:
    """Plot improved precision against improved recall, with the scales beside the points."""
    figure, axes = empty()
    for curve, colour in zip(lines, colours(len(lines)), strict=True):
        recall, precision = curve.measured("improved_recall")[0], curve.measured("improved_precision")[0]
        axes.plot(recall, precision, marker="o", markersize=4, color=colour, label=curve.label)
    axes.margins(0.12)
    axes.autoscale_view()  # the texts are placed by the limits of the axes
    texts: list[NDArray[np.float64]] = []
    for curve in lines:
        _annotate_scales(axes, curve, len(lines) > 3, texts)
    axes.set(xlabel="improved recall (share of real images near samples)")
    axes.set(ylabel="improved precision (share of samples near real images)")
    return add_legend(figure)


def plot_per_class(curve: Curve, class_names: Sequence[str]) -> Figure:
    """Plot the accuracy of each class against scale; many classes are grey, with their mean in blue."""
    figure, axes = empty()
    accuracies = np.array([class_accuracies(row) for row in curve.rows])
    many = len(class_names) > MAX_COLUMNS
    for index, name in enumerate(class_names):
        colour, label = ("grey", "_") if many else (matplotlib.colormaps["tab20"](index), _in_legend(name))
        axes.plot(curve.scales, accuracies[:, index], ".-", color=colour, alpha=0.3 if many else 1, label=label)
    if many:
        mean = np.ma.masked_invalid(accuracies).mean(axis=1)
        words = f"mean of {len(class_names)} classes"
        axes.plot(curve.scales, mean.filled(np.nan), "o-", color="tab:blue", label=words)
    axes.set(title=curve.label, xlabel="guidance scale w", ylabel="judge accuracy")
    percent_axis(axes)
    return add_legend(figure)


def plot_confusion(curve: Curve, class_names: Sequence[str]) -> Figure:
    """Plot a panel for each scale: the share of a label's samples (row) by predicted class (column)."""
    columns = min(len(curve.rows), 6)
    height = -(-len(curve.rows) // columns)
    figure = Figure(figsize=(1.8 * columns + 1.2, 1.9 * height + 0.6), dpi=120, layout="constrained")
    panels = figure.subplots(height, columns, squeeze=False).flatten()
    for panel, row in zip(panels, curve.rows, strict=False):
        image = panel.imshow(_shares(row.pictures.confusion), vmin=0, vmax=1, cmap="viridis", interpolation="nearest")
        panel.set_title(f"w = {row.scale:g}", fontsize=9)
        _name_classes(panel, class_names)
    for panel in panels[len(curve.rows) :]:
        panel.set_visible(False)
    figure.colorbar(image, ax=list(panels), label="share of the label's samples", shrink=0.8)
    figure.suptitle(f"{curve.label}\nrow: label, column: predicted class", fontsize=9)
    return figure


def plot_strip(curve: Curve) -> Figure:
    """Draw a row of images for each scale; a column has the same noise and label."""
    images = np.stack([row.pictures.strip[:MAX_COLUMNS] for row in curve.rows])
    return _rows(curve, images, [""] * images.shape[1])


def plot_means(curve: Curve, class_names: Sequence[str]) -> Figure:
    """Draw the mean image of each class, a row for each scale; a class without samples is grey."""
    images = np.stack([row.pictures.means[:MAX_COLUMNS] for row in curve.rows])
    names = [""] * images.shape[1] if len(class_names) > MAX_COLUMNS else [_short(name) for name in class_names]
    return _rows(curve, np.nan_to_num(images, nan=0.0), names)


def plot_uncertain(curve: Curve, class_names: Sequence[str]) -> Figure:
    """Draw the uncertain samples of each scale, with label, predicted class and the probability of the label."""
    height, width = _pixels(curve.rows[0].pictures.uncertain[0]).shape[:2]
    cell = 0.1 + 0.9 * min(max(1, width / height), MAX_ASPECT)
    right = MAX_UNCERTAIN * cell
    figure = Figure(figsize=(right + 0.6, 1.5 * len(curve.rows)), dpi=100)
    axes = figure.add_axes((0, 0, 1, 1), xlim=(-0.6, right), ylim=(1.5 * len(curve.rows), 0))
    axes.set_axis_off()
    for index, row in enumerate(curve.rows):
        axes.text(-0.08, 1.5 * index + 0.45, f"w = {row.scale:g}", ha="right", va="center", fontsize=9)
        _draw_uncertain(axes, row, 1.5 * index, cell, class_names)
    return figure


def _draw_uncertain(axes: Axes, row: Result, top: float, cell: float, class_names: Sequence[str]) -> None:
    """Draw the samples of a row below ``top``, each in a cell of this width, without distortion; units are inches."""
    pictures = row.pictures
    for column, image in enumerate(pictures.uncertain[:MAX_UNCERTAIN]):
        pixels, middle = _pixels(image), (column + 0.5) * cell
        pixel = min((cell - 0.1) / pixels.shape[1], 0.9 / pixels.shape[0])
        width, height = pixels.shape[1] * pixel, pixels.shape[0] * pixel
        edges = (middle - width / 2, middle + width / 2, top + 0.45 + height / 2, top + 0.45 - height / 2)
        axes.imshow(pixels, extent=edges, aspect="auto", interpolation="nearest")
        label = _short(class_names[pictures.uncertain_labels[column]])
        prediction = _short(class_names[pictures.uncertain_predictions[column]])
        between = " " if len(label + prediction) < 8 else "\n"
        probability = f"{pictures.uncertain_probabilities[column]:.1%}"
        caption = f"{label}{between}\N{RIGHTWARDS ARROW} {prediction}\n{probability}"
        axes.text(middle, top + 0.94, literal(caption), ha="center", va="top", fontsize=8, linespacing=1.1)


def _rows(curve: Curve, images: NDArray[np.float32], columns: Sequence[str]) -> Figure:
    return labelled_grid(torch.from_numpy(images), [f"w = {scale:g}" for scale in curve.scales], columns)


def _annotate_scales(axes: Axes, curve: Curve, ends_only: bool, texts: list[NDArray[np.float64]]) -> None:
    """Write scales beside their points, the ends first, where they cover no other of ``texts``; add them there."""
    points = np.array([curve.measured(f"improved_{name}")[0] for name in ("recall", "precision")]).T
    known = [index for index in range(len(points)) if np.isfinite(points[index]).all()]
    ends = list(dict.fromkeys(known[:1] + known[-1:]))
    inch = axes.figure.dpi / np.asarray(axes.bbox.size)  # as a share of the axes
    for index in ends if ends_only else dict.fromkeys([*ends, *known]):
        position = axes.transAxes.inverted().transform(axes.transData.transform(points[index]))
        corners = {corner: position + np.array(corner) / 72 * inch for corner in CORNERS}
        size = np.array(TEXT_SIZE) / 72 * inch
        free = [at for at, text in corners.items() if not any((abs(text - other) < size).all() for other in texts)]
        if free:
            name = f"w = {curve.scales[index]:g}"
            axes.annotate(name, points[index], xytext=free[0], textcoords="offset points", fontsize=7)
            texts.append(corners[free[0]])


def _name_classes(panel: Axes, class_names: Sequence[str]) -> None:
    panel.set(xticks=[], yticks=[])
    if len(class_names) <= 10 and max(map(len, class_names)) <= 2:
        names = [literal(name) for name in class_names]
        panel.set_xticks(range(len(names)), names, fontsize=6)
        panel.set_yticks(range(len(names)), names, fontsize=6)
        panel.tick_params(length=0, pad=1)


def _shares(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return each row of the confusion matrix divided by its sum, nan for a class without samples."""
    counts = confusion.sum(axis=1, keepdims=True)
    return np.where(counts > 0, confusion / np.maximum(counts, 1), np.nan)


def _pixels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return an image of shape (c, h, w) in [-1, 1] as it is drawn, shape (height, width, 3)."""
    return grid(torch.from_numpy(image[None]), columns=1).numpy()


def _in_legend(name: str) -> str:
    """Return the name of a class for a legend, which leaves out those that begin with an underscore."""
    return literal(f" {name}" if name.startswith("_") else name)


def _short(name: str) -> str:
    return name if len(name) <= 12 else f"{name[:11]}\N{HORIZONTAL ELLIPSIS}"
