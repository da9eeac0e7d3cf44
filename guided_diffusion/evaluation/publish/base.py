"""What a dashboard can do, and what every dashboard shows of an evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from guided_diffusion.evaluation.modalities import modality
from guided_diffusion.evaluation.plots.curves import curves
from guided_diffusion.evaluation.results import Result, Results


@runtime_checkable
class Dashboard(Protocol):
    """Shows in one logger what Lightning has no common call for."""

    def __init__(self, logger: Any) -> None: ...

    def picture(self, key: str, path: Path, step: int) -> None:
        """Show the picture of this file, after so many steps of training."""

    def curve(self, key: str, points: Mapping[float, float], step: int) -> None:
        """Show a quantity by the scale of guidance, after so many steps of training."""

    def results(self, results: Results, folder: Path) -> None:
        """Show an evaluation, whose files lie in ``folder``."""

    def finish(self, status: int) -> None:
        """Close the logger; ``status`` is 0 if all went well."""


@dataclass(frozen=True)
class Point:
    """A row of an evaluation, as a point of its curve."""

    row: Result
    curve: str
    """The name of the curve as the end of a key; empty if there is one curve only."""
    title: str

    def key(self, quantity: str) -> str:
        """``guidance/accuracy``, or with several curves ``guidance/accuracy/cfg-ddim-50``."""
        return "/".join(filter(None, ("guidance", quantity, self.curve)))

    @property
    def figures(self) -> dict[str, float]:
        """What is drawn against the scale."""
        measured = {name: interval.value for name, interval in self.row.measured.items()}
        return measured | {"nfe": self.row.nfe, "seconds": self.row.seconds}

    @property
    def pictures(self) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
        """What is shown at every scale."""
        return modality(self.row.kind).drawings(self.row)


def points(results: Results) -> list[Point]:
    """Every row, in order of scale."""
    lines = curves(results)
    several = len(lines) > 1
    every = [Point(row, dotless(line.slug) if several else "", line.name) for line in lines for row in line.rows]
    return sorted(every, key=lambda point: point.row.scale)


def by_scale(key: str, points: Mapping[float, float]) -> dict[str, float]:
    """One metric for each scale, for loggers with one axis only."""
    return {f"{key}_w{scale:g}": value for scale, value in points.items()}


def dotless(name: str) -> str:
    """To W&B a dot in a key is a level of nesting."""
    return name.replace(".", "_")
