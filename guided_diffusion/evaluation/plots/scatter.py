"""Pictures of points in the plane, over the exact density of the data: scatters and animations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

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
from guided_diffusion.utils.files import atomic_write

LIMIT = 1.35
"""Pictures show the plane from minus this to this, the data from -1 to 1."""


NOISE_LIMIT = 1.6
"""The same for animations, which begin with noise."""


CELLS = 150


OWN, OTHER = 0.45, 0.16
"""How dark the densest place of a class's own pattern is, and of the others."""


MAX_SHOWN = 1000
"""Points in one panel."""


MAX_PATHS = 40


DOT = 5.0


def densities_of(patterns: Sequence[Pattern], limit: float) -> NDArray[np.float32]:
    """The exact density of each pattern on a grid from ``-limit`` to ``limit``, 1 where it is densest."""
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
    """A panel for each row and column: its first points, over the density of the data.

    Args:
        points: of each panel.
        densities: of all patterns of the data, of ``densities_of(patterns, LIMIT)``.
        rows, columns: names.
        own: for each column the number of its pattern, which stands out.
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


def save_scatter_grid(
    points: Float[Tensor, "rows columns n 2"],
    densities: NDArray[np.float32],
    path: str | Path,
    rows: Sequence[str],
    columns: Sequence[str],
    own: Sequence[int],
) -> None:
    """A PNG of ``scatter_grid``."""
    figure = scatter_grid(points, densities, rows, columns, own)
    with atomic_write(path) as temporary:
        figure.savefig(temporary)


def draw_density(axes: Axes, densities: NDArray[np.float32], own: int, limit: float) -> None:
    """The density of the data in greys, that of one pattern darker; equally dark at its densest in each."""
    darkness = [OWN if label == own else OTHER for label in range(len(densities))]
    dark = (np.array(darkness)[:, None, None] * densities**0.5).max(axis=0)
    extent = (-limit, limit, -limit, limit)
    axes.imshow(1 - dark, cmap="gray", vmin=0, vmax=1, extent=extent, origin="lower", interpolation="bilinear")


def point_frames(
    steps: Sequence[Step], densities: NDArray[np.float32], own: Sequence[int], names: Sequence[str]
) -> Iterator[UInt8[Tensor, "height width 3"]]:
    """A frame for every step: a column for each class, x_t with the paths so far above the estimate of x_0.

    Args:
        steps: of a sampler; as many points of each class, class after class.
        densities: of all patterns of the data, of ``densities_of(patterns, NOISE_LIMIT)``.
        own: for each column the number of its pattern.
        names: of the columns.
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
    x, x0 = (torch.stack([part.unflatten(0, (len(names), -1)) for part in parts]).numpy() for parts in _parts(steps))
    for number, step in enumerate(steps):
        time.set_text(f"t = {step.t:.2f}")
        for column, lines in enumerate(paths):
            lines.set_segments(list(x[: number + 1, column, :MAX_PATHS].swapaxes(0, 1)))
        for artist, cloud in zip(dots, [*x[number], *x0[number]], strict=True):
            artist.set_data(*cloud.T)
        yield pixels_of(figure)


def _parts(steps: Sequence[Step]) -> tuple[list[Tensor], list[Tensor]]:
    return [step.x.float().cpu() for step in steps], [step.x0.float().cpu() for step in steps]


def _panels(rows: int, columns: int, limit: float) -> tuple[Figure, NDArray[np.object_]]:
    """Square panels side by side, without ticks."""
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
    canvas = figure.canvas
    canvas.draw()
    return torch.from_numpy(np.asarray(canvas.buffer_rgba())[..., :3].copy())  # type: ignore[attr-defined]
