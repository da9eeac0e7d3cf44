"""Curves of measures against the guidance scale."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from guided_diffusion.evaluation.plots.image_grid import _save
from guided_diffusion.evaluation.results import Result, Results
from guided_diffusion.utils.files import atomic_write


def save_accuracy_plot(lines: Mapping[str, Sequence[tuple[float, float]]], ceiling: float, path: str | Path) -> None:
    """A PNG of judge accuracy against guidance scale, with the judge's accuracy on real images.

    Args:
        lines: pairs of scale and accuracy, by the name of the line.
        ceiling: the judge's accuracy on real images.
        path: of the PNG.
    """
    save_share_plot(lines, ceiling, path, "judge accuracy", "real test images")


def save_share_plot(
    lines: Mapping[str, Sequence[tuple[float, float]]], level: float, path: str | Path, quantity: str, real: str
) -> None:
    """A PNG of a share against guidance scale, with that of real data dashed.

    Args:
        lines: pairs of scale and share, by the name of the line.
        level: the share of real data.
        path: of the PNG.
        quantity: what the share is of.
        real: what the real data are called.
    """
    figure = Figure(figsize=(7, 4.2), dpi=120, layout="constrained")
    axes = figure.add_subplot()
    for name, points in lines.items():
        axes.plot(*zip(*points, strict=True), marker="o", markersize=4, label=name)
    axes.axhline(level, linestyle="--", color="grey", label=f"{real}: {level:.1%}")
    axes.set(xlabel="guidance scale w", ylabel=quantity, ylim=(0, 1.02))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.grid(alpha=0.3)
    axes.legend()
    _save(figure, path)


SUFFIXES = (".png", ".pdf")


HEIGHT = 3.8
"""In inches, of a plot without its legend."""


@dataclass(frozen=True)
class Curve:
    """Rows that differ in their scale only, in its order."""

    name: str
    slug: str
    """The name as a part of file names; no two curves have the same."""
    rows: Sequence[Result]

    @property
    def scales(self) -> list[float]:
        return [row.scale for row in self.rows]

    def measured(self, name: str) -> NDArray[np.float64]:
        """Value, low and high along the scale, shape (3, scales)."""
        return np.array([row.measured[name] for row in self.rows], dtype=float).T


def curves(results: Results) -> list[Curve]:
    """The rows grouped by method, sampler, steps and options, in the order they come in."""
    groups: dict[str, list[Result]] = {}
    for row in results.rows:
        groups.setdefault(curve_name(row), []).append(row)
    slugs = _distinct([_slug(name) for name in groups])
    return [
        Curve(name, slug, sorted(rows, key=lambda row: row.scale))
        for slug, (name, rows) in zip(slugs, groups.items(), strict=True)
    ]


def curve_name(row: Result) -> str:
    """What a row shares with the rows of other scales, in words."""
    options = [f"{name} = {value}" for name, value in row.options.items() if value != ""]
    return ", ".join([row.method, row.sampler, f"{row.steps} steps", *options])


def plot_names(lines: Sequence[Curve], shared: Sequence[str], of_curve: Sequence[str]) -> list[str]:
    """Of the files, without their suffix."""
    return [*shared, *(f"{plot}-{curve.slug}" for curve in lines for plot in of_curve)]


def against_scale(lines: Sequence[Curve], measure: str) -> tuple[Figure, Axes]:
    figure, axes = empty()
    draw_against_scale(axes, lines, measure)
    return figure, axes


def draw_against_scale(axes: Axes, lines: Sequence[Curve], measure: str) -> None:
    """A line with its intervals for every curve."""
    for curve, colour in zip(lines, _colours(len(lines)), strict=True):
        value, low, high = curve.measured(measure)
        scales, known = np.array(curve.scales), np.isfinite(low + high)
        axes.plot(scales, value, marker="o", markersize=4, color=colour, label=curve.name)
        axes.fill_between(scales, low, high, where=known, color=colour, alpha=0.2, linewidth=0)
        axes.vlines(scales[known], low[known], high[known], color=colour, alpha=0.5, linewidth=1)
    axes.set(xlabel="guidance scale w")


def spread_scales(axes: Axes, ticks: Sequence[float]) -> None:
    """Let large scales leave room for small ones: the axis is linear up to 2 and logarithmic above."""
    axes.set_xscale("symlog", linthresh=2)
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.minorticks_off()
    axes.margins(x=0.03)


def draw_floors(axes: Axes, lines: Sequence[Curve], measure: str, words: str) -> None:
    """What real data reach, dashed: one line as a rule; of a sweep there may be more."""
    floors = np.array([row.floors[measure] for curve in lines for row in curve.rows], dtype=float)
    for index, floor in enumerate(np.unique(floors[np.isfinite(floors)])):
        axes.axhline(floor, linestyle="--", color="grey", label="_" if index else f"{words}, {floor:.3g}")


def empty() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.6, HEIGHT), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def _colours(count: int) -> list[tuple[float, float, float, float]]:
    few = matplotlib.colormaps["tab10"]
    many = matplotlib.colormaps["viridis"]
    return [few(index) if count <= 10 else many(index / count) for index in range(count)]


def add_legend(figure: Figure) -> None:
    """Below the plot, which keeps its height."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = max(1, min(len(labels), 80 // (max(map(len, labels), default=0) + 7)))
    figure.set_figheight(HEIGHT + 0.17 * -(-len(labels) // columns))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, fontsize=8, frameon=False)


def _slug(name: str) -> str:
    return re.sub(r"[^\w.=-]+", "-", name.replace(" = ", "=").replace(" steps", "")).strip("-.")[:100]


def _distinct(names: Sequence[str]) -> list[str]:
    """A number is added to a name that came before; letter case alone does not tell files apart everywhere."""
    taken: list[str] = []
    for name in names:
        tries = (name if number == 1 else f"{name}-{number}" for number in range(1, len(names) + 1))
        taken.append(next(one for one in tries if one.lower() not in {other.lower() for other in taken}))
    return taken


def _with_suffix(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)  # the name may hold a dot, as in label_dropout=0.1


def save_figure(figure: Figure, path: Path) -> None:
    FigureCanvasAgg(figure)
    for suffix in SUFFIXES:
        with atomic_write(_with_suffix(path, suffix)) as temporary:
            figure.savefig(temporary, bbox_inches="tight", pad_inches=0.05)
