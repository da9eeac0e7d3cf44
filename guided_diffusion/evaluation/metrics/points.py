"""What an evaluation measures of points in the plane: against the curve, and against the exact density.

A pattern is known exactly, so nothing here is learned: no judge and no features.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guided_diffusion.data import Pattern
from guided_diffusion.evaluation.metrics.bootstrap import RESAMPLES, counts, percentile_interval
from guided_diffusion.evaluation.metrics.features import kernel_discrepancies
from guided_diffusion.evaluation.metrics.images import LabelledSamples
from guided_diffusion.evaluation.results import Interval
from guided_diffusion.utils.rng import generator_for

TOLERANCE = 0.05
"""A point further than this from its curve is off it."""


ANGLES = 64
"""Directions of the sliced distance, evenly over half a turn: no chance is involved."""


LIMIT = 1_000
"""Points of a class that distances between sets are measured on, at most."""


CELLS = 24
"""Of the grid on which total variation and divergence are taken, in each direction, from -1.2 to 1.2."""


EDGE = 1.2


RARE = 1e-9
"""A cell of less probability counts as one of this, so that the divergence stays finite."""


SET_RESAMPLES = 50
"""Each compares two sets again."""


CHUNK = 25


MEASURES = (
    "distance_mean",
    "distance_p95",
    "off_curve",
    "own_pattern",
    "sliced_wasserstein",
    "mmd",
    "total_variation",
    "kl",
)


@dataclass(frozen=True)
class PointMeasurement:
    """What ``measure_points`` found."""

    measured: Mapping[str, Interval]
    per_class: Sequence[Mapping[str, Any]]
    """For each class: ``class``, ``class_name``, ``count``, the measures of it, and ``share``, that of all samples
    whose nearest pattern it is, whatever label was asked for; nan where it has no samples."""


def measure_points(
    samples: LabelledSamples, patterns: Sequence[Pattern], class_names: Sequence[str], seed: int = 0
) -> PointMeasurement:
    """Everything about these samples, at least one of them, against the pattern of their label.

    ``measured`` holds means over the classes that have samples, with 95 % intervals,

        distance_mean, distance_p95   distance to the curve: mean and 95th percentile
        off_curve                     share of points further than 0.05 from it
        own_pattern                   share of points whose nearest pattern is that of their label
        sliced_wasserstein            to as many true points of the class, 1,000 at most
        mmd                           squared maximum mean discrepancy to these; may be slightly negative
        total_variation, kl           of the points' histogram to the exact probabilities of its cells
        saturation                    share of |x| > 1 before clamping

    Intervals come from points resampled within each class. Sets of points of which some are drawn twice are further
    from the truth, so the intervals of the four distances between sets are moved to the value.
    """
    distances = torch.stack([pattern.distance(samples.samples) for pattern in patterns], dim=1)
    groups = [label for label in range(len(patterns)) if (samples.labels == label).any()]
    found = {
        label: _of_class(samples, distances, label, patterns[label], generator_for("cpu", seed, label + 1))
        for label in groups
    }
    measured = {name: _mean_over_classes([found[label][name] for label in groups]) for name in found[groups[0]]}
    share = torch.bincount(distances.argmin(1), minlength=len(patterns)) / len(distances)
    per_class = [
        {"class": label, "class_name": name, "count": int((samples.labels == label).sum())}
        | {measure: found[label][measure].value if label in found else math.nan for measure in measured}
        | {"share": share[label].item()}
        for label, name in enumerate(class_names)
    ]
    intervals = {name: _interval(name, one) for name, one in measured.items()}
    return PointMeasurement(intervals, per_class)


def distances_to_own(
    points: Float[Tensor, "n 2"], labels: Int[Tensor, " n"], patterns: Sequence[Pattern]
) -> Float[Tensor, " n"]:
    """From each point to the curve of its label."""
    distances = torch.zeros(len(points), dtype=torch.float64)
    for label, pattern in enumerate(patterns):
        distances[labels == label] = pattern.distance(points[labels == label])
    return distances


def floors_of(
    patterns: Sequence[Pattern], class_names: Sequence[str], num_samples: int, seed: int = 0
) -> dict[str, float]:
    """What ``num_samples`` true points, evenly over the classes, would reach: no sampler can be asked for more."""
    labels = torch.arange(num_samples) % len(patterns)
    generator = generator_for("cpu", seed, len(patterns) + 1, 1)
    points = torch.zeros(num_samples, 2)
    for label, pattern in enumerate(patterns):
        of_class = labels == label
        points[of_class] = pattern.generate(int(of_class.sum()), generator)
    found = measure_points(LabelledSamples(points, labels, torch.zeros(num_samples)), patterns, class_names, seed)
    return {name: found.measured[name].value for name in MEASURES}


def sliced_wasserstein(first: Float[Tensor, "n 2"], second: Float[Tensor, "n 2"]) -> float:
    r"""``(mean over directions u of W_2(u^T X, u^T Y)^2)^(1/2)`` of two sets of as many points.

    On a line the optimal plan keeps the order (Bonneel et al. 2015, section 3). For two sets that differ by a shift d
    it is ``|d| / sqrt(2)``.
    """
    return _sliced(_sorted_projections(first), second).item()


def squared_mmd(first: Float[Tensor, "m 2"], second: Float[Tensor, "n 2"], bandwidth: float) -> float:
    """``E k(x, x') + E k(y, y') - 2 E k(x, y)`` with ``k = exp(-|x - y|^2 / (2 bandwidth^2))``, without bias.

    Gretton et al. 2012 (JMLR 13, eq. 3).
    """
    return kernel_discrepancies(first, second, torch.ones(1, len(second)), _gaussian(bandwidth)).item()


def median_distance(points: Float[Tensor, "n 2"]) -> float:
    """The median of the distances between two of the points: the usual bandwidth (Gretton et al. 2012, section 8)."""
    return torch.pdist(points.double()).median().item()


def grid_edges() -> Float[Tensor, " edges"]:
    return torch.linspace(-EDGE, EDGE, CELLS + 1, dtype=torch.float64)


def total_variation(shares: Float[Tensor, "*batch cells"], mass: Float[Tensor, " cells"]) -> Float[Tensor, "*batch"]:
    """``sum |p - q| / 2`` over the cells, and over the rest of the plane, with p the share of the points there."""
    share, mass = _with_the_rest(shares, mass)
    return (share - mass).abs().sum(-1) / 2


def divergence(shares: Float[Tensor, "*batch cells"], mass: Float[Tensor, " cells"]) -> Float[Tensor, "*batch"]:
    """``KL(p, q) = sum p log(p / q)``, with p the share of the points in a cell and q its probability."""
    share, mass = _with_the_rest(shares, mass)
    return torch.special.xlogy(share, share / mass.clamp(min=RARE)).sum(-1)


@dataclass(frozen=True)
class _Resampled:
    """A value and what it is for resampled points."""

    value: float
    resampled: Float[Tensor, " resamples"]


def _of_class(
    samples: LabelledSamples,
    distances: Float[Tensor, "n classes"],
    label: int,
    pattern: Pattern,
    generator: torch.Generator,
) -> dict[str, _Resampled]:
    of_class = samples.labels == label
    points, to_all = samples.samples[of_class].double(), distances[of_class]
    to_own = to_all[:, label]
    few = points[:LIMIT]
    true = pattern.generate(len(few), generator).double()
    rows = torch.randint(len(points), (RESAMPLES, len(points)), generator=generator)
    few_rows = torch.randint(len(few), (SET_RESAMPLES, len(few)), generator=generator)
    means = {
        "distance_mean": to_own,
        "off_curve": (to_own > TOLERANCE).double(),
        "own_pattern": (to_all.argmin(1) == label).double(),
        "saturation": samples.saturation[of_class].double(),
    }
    return {
        **{name: _Resampled(values.mean().item(), values[rows].mean(1)) for name, values in means.items()},
        "distance_p95": _Resampled(to_own.quantile(0.95).item(), to_own[rows].quantile(0.95, dim=1)),
        **_against_true(few, true, few_rows),
        **_against_density(points, pattern, rows),
    }


def _against_true(
    points: Float[Tensor, "n 2"], true: Float[Tensor, "n 2"], rows: Int[Tensor, "r n"]
) -> dict[str, _Resampled]:
    projected = _sorted_projections(true)
    sliced = torch.stack([_sliced(projected, points[row]) for row in rows])
    value = _sliced(projected, points).item()
    found = {"sliced_wasserstein": _centred(value, sliced)}
    if len(points) < 3:
        nothing = torch.full((len(rows),), torch.nan, dtype=torch.float64)
        return found | {"mmd": _Resampled(math.nan, nothing)}
    weights = torch.cat([torch.ones(1, len(points)), counts(rows, len(points))])  # every point once, then resampled
    value, *resampled = kernel_discrepancies(true, points, weights, _gaussian(median_distance(true)))
    return found | {"mmd": _centred(value.item(), torch.stack(resampled))}


def _against_density(points: Float[Tensor, "n 2"], pattern: Pattern, rows: Int[Tensor, "r n"]) -> dict[str, _Resampled]:
    edges = grid_edges()
    mass, cells = pattern.mass(edges).flatten(), cells_of(points, edges)
    shares = torch.cat([_histograms(cells[part], len(mass)) for part in rows.split(CHUNK)])
    once = _histograms(cells[None], len(mass))
    measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"total_variation": total_variation, "kl": divergence}
    return {name: _centred(measure(once, mass).item(), measure(shares, mass)) for name, measure in measures.items()}


def cells_of(points: Float[Tensor, "n 2"], edges: Float[Tensor, " edges"]) -> Int[Tensor, " n"]:
    """The number of the cell that each point is in, rows from below; one past the last for points outside."""
    column, row = (torch.bucketize(points.double(), edges) - 1).unbind(1)
    size = len(edges) - 1
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    return torch.where(inside, row * size + column, size**2)


def _histograms(cells: Int[Tensor, "r n"], count: int) -> Float[Tensor, "r {count}"]:
    """The share of the points in each cell; what lies outside is left out, and known from the sum."""
    shifted = cells + (count + 1) * torch.arange(len(cells))[:, None]
    every = shifted.flatten().bincount(minlength=(count + 1) * len(cells)).view(-1, count + 1)
    return every[:, :count].double() / cells.shape[1]


def _with_the_rest(
    shares: Float[Tensor, "*batch cells"], mass: Float[Tensor, " cells"]
) -> tuple[Float[Tensor, "*batch cells+1"], Float[Tensor, " cells+1"]]:
    share, all_mass = (torch.cat([x, (1 - x.sum(-1, keepdim=True)).clamp(min=0)], dim=-1) for x in (shares, mass))
    return share, all_mass


def _sorted_projections(points: Float[Tensor, "n 2"]) -> Float[Tensor, "n angles"]:
    angle = (torch.arange(ANGLES, dtype=torch.float64) + 0.5) / ANGLES * math.pi
    return (points.double() @ torch.stack([angle.cos(), angle.sin()])).sort(0).values


def _sliced(projected: Float[Tensor, "n angles"], points: Float[Tensor, "n 2"]) -> Float[Tensor, ""]:
    return (_sorted_projections(points) - projected).square().mean().sqrt()


def _gaussian(bandwidth: float) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda x, y: (-torch.cdist(x, y).square() / (2 * bandwidth**2)).exp()


def _centred(value: float, resampled: Float[Tensor, " r"]) -> _Resampled:
    """Moved so that the mean of the resampled values lies at the value."""
    return _Resampled(value, resampled - (resampled.nanmean() - value))


def _interval(name: str, found: _Resampled) -> Interval:
    value, low, high = percentile_interval(found.value, found.resampled)
    return Interval(value, low if name == "mmd" else max(low, 0.0), high)


def _mean_over_classes(of_classes: Sequence[_Resampled]) -> _Resampled:
    values = torch.tensor([one.value for one in of_classes], dtype=torch.float64)
    return _Resampled(values.mean().item(), torch.stack([one.resampled.double() for one in of_classes]).mean(0))
