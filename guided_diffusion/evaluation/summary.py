"""Helpers to describe results in words: the best row, a sentence about it, and numbers as text."""

import math
from collections.abc import Sequence

from guided_diffusion.evaluation.plots.curves import curve_name
from guided_diffusion.evaluation.proportions import EQUAL, PROPORTIONAL
from guided_diffusion.evaluation.results import PUBLISHED, Result, Results

PERCENT = ("accuracy", "cross_accuracy", "saturation", "off_curve", "own_pattern")
"""The measures that are written in per cent."""

LABELS_SENTENCES = {
    PROPORTIONAL: "Classes are drawn in the proportions of the test data.",
    EQUAL: "Every class is drawn equally often and counts the same in the test data.",
}
"""A sentence about each way to draw labels."""


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
    interval = row.measured[measure]
    value, low, high = (shown(measure, part) for part in interval)
    where = f"w = {row.scale:g}" + (f" ({curve_name(row)})" if several else "")
    around = f" (95 % interval {low} to {high})" if math.isfinite(interval.low + interval.high) else ""
    return f"{subject} is {value}{around}, at {where}."


def floor_of(row: Result | None, results: Results, measure: str) -> float:
    """Return the floor of a measure in a row, or in the first row if there is none."""
    return (row or results.rows[0]).floors[measure]


def labels_sentences(results: Results) -> list[str]:
    """Return sentences that say how labels were drawn, and how many extra samples rare classes have.

    There is one for each way that occurs in a sweep, and none for older results, which do not record it.
    """
    found = {row.labels for row in results.rows}
    sentences = [sentence for labels, sentence in LABELS_SENTENCES.items() if labels in found]
    extra = max(sum(int(one["count"]) for one in row.per_class) - row.num_samples for row in results.rows)
    about_extra = f"{extra} more samples of rare classes count in the measures of these classes only."
    return [*sentences, about_extra] if sentences and extra > 0 else sentences


def cross_check_sentences(results: Results, several: bool) -> list[str]:
    """Return the best accuracy that a second judge measured, and its ceiling; nothing if there was none.

    ``several`` is as in ``best_sentence``.
    """
    best = best_row([row for row in results.rows if "cross_accuracy" in row.measured], "cross_accuracy", lowest=False)
    if best is None:
        return []
    second = results.about.get("cross_check")
    sentence = best_sentence("The best accuracy by the second judge", best, "cross_accuracy", several)
    if not second:
        return [sentence]
    return [sentence, f"The ceiling of that judge, {second['name']}, is {percent(second['ceiling'])}."]


def inception_sentences(results: Results, several: bool) -> list[str]:
    """Return what is to be said about Inception FID and KID: of what they are, their floors, and the lowest FID.

    Nothing is said if they were not measured. ``several`` is as in ``best_sentence``.
    """
    rows = [row for row in results.rows if "inception_fid" in row.measured]
    compared = dict.fromkeys(_inception_sentence(row) for row in rows)
    other = "The network's weights are not the published ones, so these values compare only with each other."
    best = best_sentence("The lowest Inception FID", best_row(rows, "inception_fid", True), "inception_fid", several)
    is_other = any(row.facts["inception_network"] != PUBLISHED for row in rows)
    return [*compared, *([other] if is_other else []), *([best] if rows else [])]


def _inception_sentence(row: Result) -> str:
    fid, kid = row.floors["inception_fid"], row.floors["inception_kid"]
    reached = f"as many training images reach an FID of {number(fid)} and a KID of {number(kid)}"
    return (
        f"Inception FID and KID compare {row.num_samples} samples ({row.weights} weights) with the "
        f"{row.facts['reference_samples']} images of the {row.facts['reference_split']} split; "
        f"{reached if math.isfinite(fid) else 'there are not enough training images for a floor'}."
    )


def shown(name: str, value: float) -> str:
    """Return the value of a measure as text, in per cent where that is usual."""
    return percent(value) if name in PERCENT else number(value)


def percent(value: float) -> str:
    """Return a share as text, for example ``12.3 %``."""
    return f"{value:.1%}".replace("%", " %") if math.isfinite(value) else "not known"


def number(value: float) -> str:
    """Return a number as text with three significant digits."""
    return f"{value:.3g}" if math.isfinite(value) else "not known"
