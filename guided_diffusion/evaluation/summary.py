"""What the numbers of an evaluation say, in words and in the shell; and how a number is written."""

from __future__ import annotations

import math
from collections.abc import Sequence

from guided_diffusion.evaluation.plots.curves import curve_name, curves
from guided_diffusion.evaluation.results import Result, Results

PERCENT = ("accuracy", "saturation", "off_curve", "own_pattern")


def read_images(results: Results) -> str:
    """A paragraph of plain text about images."""
    about, several = results.about, len(curves(results)) > 1
    best = _extreme(results.rows, "accuracy", lowest=False)
    closest = _extreme(results.rows, "fld", lowest=True)
    sentences = [
        _sentence("The best judge accuracy", best, "accuracy", several),
        f"The ceiling, its accuracy on real test images, is {percent(float(about['judge_ceiling']))}"
        + (
            ": above it samples are easier than life, which is no praise."
            if _above(best, float(about["judge_ceiling"]))
            else "."
        ),
        _sentence("The lowest Fréchet distance", closest, "fld", several),
        f"The floor, the distance between real images and other real images, is "
        f"{number(_floor(closest, results, 'fld'))}.",
        f"Distances are taken in the features of the judge's network, {about['judge']}.",
    ]
    return " ".join(sentences)


def read_points(results: Results) -> str:
    """A paragraph of plain text about points in the plane."""
    several = len(curves(results)) > 1
    on_curve = _extreme(results.rows, "off_curve", lowest=True)
    closest = _extreme(results.rows, "sliced_wasserstein", lowest=True)
    sentences = [
        _sentence("The smallest share of points off their curve, further than 0.05,", on_curve, "off_curve", several),
        f"Of true points it is {percent(_floor(on_curve, results, 'off_curve'))}.",
        _sentence("The lowest sliced Wasserstein distance", closest, "sliced_wasserstein", several),
        f"Between true points and other true points it is {number(_floor(closest, results, 'sliced_wasserstein'))}.",
        "Points on the curve need not be spread over it as the data are: the distances between sets tell.",
    ]
    return " ".join(sentences)


def show_images(results: Results) -> None:
    """The table, in the shell: what people look at first, with its intervals."""
    about = results.about
    floor = results.rows[0].floors["fld"]
    print(f"\njudge {about['judge']}: {about['judge_ceiling']:.1%} on real test images; Fréchet floor {floor:.2f}")
    print(f"{'w':>6} {'accuracy':>20} {'fld':>22} {'density':>8} {'coverage':>9} {'saturated':>10} {'nfe':>5} {'s':>7}")
    for row in results.rows:
        value = row.measured
        accuracy, fld = value["accuracy"], value["fld"]
        print(
            f"{row.scale:6g} {accuracy.value:8.2%} [{accuracy.low:.1%}, {accuracy.high:.1%}]"
            f" {fld.value:8.2f} [{fld.low:.2f}, {fld.high:.2f}] {value['density'].value:8.3f}"
            f" {value['coverage'].value:9.3f} {value['saturation'].value:10.2%} {row.nfe:5g} {row.seconds:7.1f}"
        )


def show_points(results: Results) -> None:
    """The table, in the shell, with that of true points above it."""
    names = ("distance_mean", "distance_p95", "sliced_wasserstein", "mmd", "total_variation", "kl")
    print(f"\n{'w':>6} {'off the curve':>21} {' '.join(f'{name:>18}' for name in names)} {'nfe':>5} {'s':>7}")
    floors = results.rows[0].floors
    print(f"{'true':>6} {floors['off_curve']:8.2%} {'':12} {' '.join(f'{floors[name]:18.4f}' for name in names)}")
    for row in results.rows:
        off = row.measured["off_curve"]
        values = " ".join(f"{row.measured[name].value:18.4f}" for name in names)
        interval = f"[{off.low:.1%}, {off.high:.1%}]"
        print(f"{row.scale:6g} {off.value:8.2%} {interval:12} {values} {row.nfe:5g} {row.seconds:7.1f}")


def _extreme(rows: Sequence[Result], measure: str, lowest: bool) -> Result | None:
    """The first of the best; None if it was measured nowhere."""
    known = [row for row in rows if math.isfinite(row.measured[measure].value)]
    return (min if lowest else max)(known, key=lambda row: row.measured[measure].value, default=None)


def _sentence(subject: str, row: Result | None, measure: str, several: bool) -> str:
    if row is None:
        return f"{subject} is not known: it was not measured at any scale."
    value, low, high = (shown(measure, part) for part in row.measured[measure])
    where = f"w = {row.scale:g}" + (f" ({curve_name(row)})" if several else "")
    return f"{subject} is {value} (95 % interval {low} to {high}), at {where}."


def _above(row: Result | None, ceiling: float) -> bool:
    return row is not None and row.measured["accuracy"].value > ceiling


def _floor(row: Result | None, results: Results, measure: str) -> float:
    return (row or results.rows[0]).floors[measure]


def shown(name: str, value: float) -> str:
    """A value of this measure."""
    return percent(value) if name in PERCENT else number(value)


def percent(value: float) -> str:
    return f"{value:.1%}".replace("%", " %") if math.isfinite(value) else "not known"


def number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "not known"
