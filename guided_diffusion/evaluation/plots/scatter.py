"""Scatter plots and animations of points in the plane, over the exact density of the data."""

from collections.abc import Iterator, Sequence

import matplotlib
import numpy as np
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from numpy.typing import NDArray
from torch import Tensor

from guided_diffusion.data import Pattern
from guided_diffusion.samplers import Step

LIMIT = 1.35
"""The limit of the axes in both directions; the data lie within 1."""

NOISE_LIMIT = 1.6
"""The limit of the axes in animations, which begin with noise."""

CELLS = 150
"""The number of cells of the density in each direction."""

OWN, OTHER = 0.45, 0.16
"""The darkness of a class's own pattern and of the others, at their largest density."""

MAX_SHOWN = 1000
"""The largest number of points in a panel."""

MAX_PATHS = 40
"""The number of points of each class whose path an animation shows."""

DOT = 5.0


def densities_of(patterns: Sequence[Pattern], limit: float) -> NDArray[np.float32]:
    """Return the exact density of each pattern on a grid from ``-limit`` to ``limit``, divided by its maximum."""
    edges = torch.linspace(-limit, limit, CELLS + 1, dtype=torch.float64)
    masses = [pattern.mass(edges) for pattern in patterns]
    return torch.stack([mass / mass.max() for mass in masses]).float().numpy()


def scatter_grid(
    points: Float[Tensor, "rows columns n 2"],
    densities: NDArray[np.float32],
    rows: Sequence[str],
    columns: Sequence[str],
    own: Sequence[int],
) -> Figure:
    """Return a figure with a panel for each named row and column: the first ``MAX_SHOWN`` points, over the density.

    Args:
        densities: The result of ``densities_of(patterns, LIMIT)`` for all patterns of the data.
        own: The number of the pattern of each column, which is drawn darker.
    """
    figure, panels = _panels(len(rows), len(columns), LIMIT)
    for name, of_row, points_of_row in zip(rows, panels, points, strict=True):
        of_row[0].set_ylabel(name)
        for label, panel, cloud in zip(own, of_row, points_of_row, strict=True):
            draw_density(panel, densities, label, LIMIT)
            _dots(panel, label).set_data(*cloud[:MAX_SHOWN].T.numpy())
    for panel, name in zip(panels[0], columns, strict=True):
        panel.set_title(name, fontsize=10)
    return figure


def draw_density(axes: Axes, densities: NDArray[np.float32], own: int, limit: float) -> None:
    """Draw the density of the data in greys, one pattern darker than the others."""
    darkness = [OWN if label == own else OTHER for label in range(len(densities))]
    dark = (np.array(darkness)[:, None, None] * densities**0.5).max(axis=0)
    extent = (-limit, limit, -limit, limit)
    axes.imshow(1 - dark, cmap="gray", vmin=0, vmax=1, extent=extent, origin="lower", interpolation="bilinear")


def point_frames(
    steps: Sequence[Step], densities: NDArray[np.float32], own: Sequence[int], names: Sequence[str]
) -> Iterator[UInt8[Tensor, "height width 3"]]:
    """Yield a frame for each step: x_t with the paths so far above the estimate of x_0, a column for each class.

    Args:
        steps: The steps of a sampler, with equally many points of each class, ordered by class.
        densities: The result of ``densities_of(patterns, NOISE_LIMIT)`` for all patterns of the data.
        own: The number of the pattern of each column, which is drawn darker.
    """
    figure, panels = _panels(2, len(names), NOISE_LIMIT)
    for of_row, quantity in zip(panels, ("$x_t$", "estimate of $x_0$"), strict=True):
        of_row[0].set_ylabel(quantity)
        for panel, label in zip(of_row, own, strict=True):
            draw_density(panel, densities, label, NOISE_LIMIT)
    for panel, name in zip(panels[0], names, strict=True):
        panel.set_title(name, fontsize=10)
    time = figure.text(0.995, 0.99, "", ha="right", va="top", fontsize=9)
    paths = [_paths(panel, label) for panel, label in zip(panels[0], own, strict=True)]
    dots = [_dots(panel, label) for of_row in panels for panel, label in zip(of_row, own, strict=True)]
    x, x0 = (_by_class([getattr(step, name) for step in steps], len(names)) for name in ("x", "x0"))
    for number, step in enumerate(steps):
        time.set_text(f"t = {step.t:.2f}")
        for column, lines in enumerate(paths):
            lines.set_segments(list(x[: number + 1, column, :MAX_PATHS].swapaxes(0, 1)))
        for artist, cloud in zip(dots, [*x[number], *x0[number]], strict=True):
            artist.set_data(*cloud.T)
        yield pixels_of(figure)


def _by_class(points: Sequence[Tensor], num_classes: int) -> NDArray[np.float32]:
    """Return the points of all steps, shape (steps, classes, n, 2)."""
    return torch.stack([one.float().cpu().unflatten(0, (num_classes, -1)) for one in points]).numpy()


def _panels(rows: int, columns: int, limit: float) -> tuple[Figure, NDArray[np.object_]]:
    """Return a figure with square panels without ticks."""
    size, left, top = 2.0, 0.3, 0.3
    figure = Figure(figsize=(columns * size + left, rows * size + top), dpi=100)
    FigureCanvasAgg(figure)
    panels = figure.subplots(rows, columns, squeeze=False)
    width, height = figure.get_size_inches()
    figure.subplots_adjust(left / width, 0.01, 0.995, 1 - top / height, wspace=0.03, hspace=0.03)
    for panel in panels.flat:
        panel.set(xlim=(-limit, limit), ylim=(-limit, limit), xticks=[], yticks=[])
    return figure, panels


def _dots(axes: Axes, label: int) -> Line2D:
    (artist,) = axes.plot([], [], ".", markersize=DOT / 2, markeredgewidth=0, color=_colour(label), alpha=0.8)
    return artist


def _paths(axes: Axes, label: int) -> LineCollection:
    lines = LineCollection([], colors=[_colour(label)], linewidths=0.6, alpha=0.35)
    axes.add_collection(lines)
    return lines


def _colour(label: int) -> tuple[float, float, float, float]:
    return matplotlib.colormaps["tab10"](label % 10)


def pixels_of(figure: Figure) -> UInt8[Tensor, "height width 3"]:
    """Return the pixels of a figure."""
    canvas = figure.canvas
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())  # type: ignore[attr-defined]
