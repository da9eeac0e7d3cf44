"""Plots of measures against the guidance scale, and the grouping of results into curves."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from numpy.typing import NDArray

from guided_diffusion.evaluation.plots.image_grid import literal, write_figure
from guided_diffusion.evaluation.results import Result, Results


def save_share_plot(
    lines: Mapping[str, Sequence[tuple[float, float]]], level: float, path: str | Path, quantity: str, real: str
) -> None:
    """Write a PNG of a share against guidance scale, with the share ``level`` of real data as a dashed line.

    ``lines`` holds the pairs of scale and share of each line; ``quantity`` and ``real`` are the names of the share and
    of the real data in words.
    """
    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.axhline(level, linestyle="--", color="grey", label=f"{real}: {level:.1%}")
    axes.set(xlabel="guidance scale w", ylabel=quantity)
    percent_axis(axes)
    axes.grid(alpha=0.3)
    axes.legend()
    write_figure(figure, path)


HEIGHT = 3.8
"""The height of a plot without its legend, in inches."""


@dataclass(frozen=True)
class Curve:
    """Rows that differ in their scale only, in the order of the scale."""

    name: str
    slug: str
    """The name as a part of file names, different for every curve."""
    rows: Sequence[Result]

    @property
    def label(self) -> str:
        """The name as matplotlib draws it."""
        return literal(self.name)

    @property
    def scales(self) -> list[float]:
        return [row.scale for row in self.rows]

    def measured(self, name: str) -> NDArray[np.float64]:
        """Return value, low and high at each scale, shape (3, scales)."""
        return np.array([row.measured[name] for row in self.rows], dtype=float).T


def curves(results: Results) -> list[Curve]:
    """Group the rows by method, sampler, steps and options, in the order of their first rows."""
    groups: dict[str, list[Result]] = {}
    for row in results.rows:
        groups.setdefault(curve_name(row), []).append(row)
    named = zip(groups.items(), _distinct([_slug(name) for name in groups]), strict=True)
    return [Curve(name, slug, sorted(rows, key=lambda row: row.scale)) for (name, rows), slug in named]


def curve_name(row: Result) -> str:
    """Return method, sampler, steps and options of a row, the name of its curve."""
    options = [f"{name} = {value}" for name, value in row.options.items() if value != ""]
    return ", ".join([row.method, row.sampler, f"{row.steps} steps", *options])


def save_figures(figures: Iterable[tuple[str, Figure]], folder: Path) -> dict[str, Path]:
    """Write named figures to a folder, each as PNG and PDF; return the paths of the PNGs by name."""
    return {name: save_figure(figure, folder / name) for name, figure in figures}


def against_scale(lines: Sequence[Curve], measure: str, quantity: str, real: str) -> Figure:
    """Plot a measure against scale, dashed for real data; ``quantity`` and ``real`` are the names of both in words."""
    figure, axes = empty()
    draw_against_scale(axes, lines, measure)
    draw_floors(axes, lines, measure, real)
    axes.set(ylabel=quantity)
    axes.set_ylim(bottom=0)
    return add_legend(figure)


def draw_against_scale(axes: Axes, lines: Sequence[Curve], measure: str) -> None:
    """Draw a line with its intervals for each curve."""
    for curve, colour in zip(lines, colours(len(lines)), strict=True):
        value, low, high = curve.measured(measure)
        scales, known = np.array(curve.scales), np.isfinite(low + high)
        axes.plot(scales, value, marker="o", markersize=4, color=colour, label=curve.label)
        axes.fill_between(scales, low, high, where=known, color=colour, alpha=0.2, linewidth=0)
        axes.vlines(scales[known], low[known], high[known], color=colour, alpha=0.5, linewidth=1)
    axes.set(xlabel="guidance scale w")


def spread_scales(axes: Axes, ticks: Sequence[float]) -> None:
    """Make the axis linear up to 2 and logarithmic above, so that large scales leave room for small ones."""
    axes.set_xscale("symlog", linthresh=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.margins(x=0.03)


def draw_floors(axes: Axes, lines: Sequence[Curve], measure: str, words: str) -> None:
    """Draw a dashed line for each floor of the rows; the first one has a label."""
    floors = np.array([row.floors[measure] for curve in lines for row in curve.rows], dtype=float)
    for index, floor in enumerate(np.unique(floors[np.isfinite(floors)])):
        axes.axhline(floor, linestyle="--", color="grey", label="_" if index else f"{words}, {floor:.3g}")


def empty() -> tuple[Figure, Axes]:
    """Return an empty plot."""
    figure = Figure(figsize=(5.6, HEIGHT), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def colours(count: int) -> list[tuple[float, float, float, float]]:
    """Return a different colour for each curve."""
    few, many = matplotlib.colormaps["tab10"], matplotlib.colormaps["viridis"]
    return [few(index) if count <= 10 else many(index / count) for index in range(count)]


def add_legend(figure: Figure) -> Figure:
    """Add a legend below the plot, enlarge the figure for it, and return the figure."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = max(1, min(len(labels), 80 // (max(map(len, labels), default=0) + 7)))
    figure.set_figheight(HEIGHT + 0.17 * -(-len(labels) // columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)
    return figure


def _slug(name: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", name.replace(" = ", "=").replace(" steps", "")).strip("-.")[:100]


def _distinct(names: Sequence[str]) -> list[str]:
    """Append a number to names that occurred before; letter case is ignored, as some file systems do."""
    distinct: list[str] = []
    for name in names:
        candidates = (name if number == 1 else f"{name}-{number}" for number in range(1, len(names) + 1))
        distinct.append(next(one for one in candidates if one.lower() not in map(str.lower, distinct)))
    return distinct


def save_figure(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG and PDF; return the path of the PNG."""
    png, pdf = (path.with_name(path.name + suffix) for suffix in (".png", ".pdf"))  # a name may hold a dot: p=0.1
    write_figure(figure, png)
    write_figure(figure, pdf)
    return png


def percent_axis(axes: Axes) -> None:
    """Write the values of the vertical axis, which are shares, in per cent."""
    axes.set_ylim(0, 1.02)
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
