"""Helpers to describe results in words: the best row, a sentence about it, and numbers as text."""

import math
from collections.abc import Sequence

from guided_diffusion.evaluation.plots.curves import curve_name
from guided_diffusion.evaluation.results import Result, Results

PERCENT = ("accuracy", "saturation", "off_curve", "own_pattern")
"""The measures that are written in per cent."""


def best_row(rows: Sequence[Result], measure: str, lowest: bool) -> Result | None:
    """Return the first row with the lowest or highest value; None if the measure is nan in all rows."""
    known = [row for row in rows if math.isfinite(row.measured[measure].value)]
    return (min if lowest else max)(known, key=lambda row: row.measured[measure].value, default=None)


def best_sentence(subject: str, row: Result | None, measure: str, several: bool) -> str:
    """Return a sentence that gives the value of a row, its interval and its scale.

    ``subject`` is for example "The lowest Fréchet distance"; ``several`` adds the name of the row's curve.
    """
    if row is None:
        return f"{subject} is not known: it was not measured at any scale."
    value, low, high = (shown(measure, part) for part in row.measured[measure])
    where = f"w = {row.scale:g}" + (f" ({curve_name(row)})" if several else "")
    return f"{subject} is {value} (95 % interval {low} to {high}), at {where}."


def floor_of(row: Result | None, results: Results, measure: str) -> float:
    """Return the floor of a measure in a row, or in the first row if there is none."""
    return (row or results.rows[0]).floors[measure]


def shown(name: str, value: float) -> str:
    """Return the value of a measure as text, in per cent where that is usual."""
    return percent(value) if name in PERCENT else number(value)


def percent(value: float) -> str:
    """Return a share as text, for example ``12.3 %``."""
    return f"{value:.1%}".replace("%", " %") if math.isfinite(value) else "not known"


def number(value: float) -> str:
    """Return a number as text with three significant digits."""
    return f"{value:.3g}" if math.isfinite(value) else "not known"
