"""The measures of generated points in the plane: against the curve of their class, and against its exact density.

A pattern is known exactly, so neither a judge nor learned features are needed.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guided_diffusion.data import Pattern
from guided_diffusion.evaluation.metrics.bootstrap import RESAMPLES, percentile_interval, row_counts
from guided_diffusion.evaluation.metrics.features import squared_mmd
from guided_diffusion.evaluation.metrics.shares import share_interval
from guided_diffusion.evaluation.plan import LabelledSamples
from guided_diffusion.evaluation.results import POINT_COLUMNS, Interval
from guided_diffusion.utils.rng import generator_for

TOLERANCE = 0.05  # the distance to its curve beyond which a point is off it
DIRECTIONS = 64  # directions of the sliced distance, evenly spaced over half a turn
SET_LIMIT = 1_000  # the largest number of points of a class for distances between sets
SET_RESAMPLES = 50  # resamples for distances between sets
CELLS = 24  # grid cells in each direction for total variation and KL divergence
GRID_EDGE = 1.2  # the grid reaches from minus to plus this in each direction
MIN_CELL_PROBABILITY = 1e-9  # the least probability of a cell in the KL divergence, which keeps it finite
CHUNK = 25  # resamples whose histograms are made at a time
MEASURES = tuple(name.removesuffix("_floor") for name in POINT_COLUMNS if name.endswith("_floor"))


@dataclass(frozen=True)
class PointMeasurement:
    """The result of ``measure_points``.

    ``measured`` holds means over the classes, weighted by their share of the labels, with 95 % intervals:

        distance_mean, distance_p95   distance to the curve: mean and 95th percentile
        off_curve                     share of points further than 0.05 from it
        own_pattern                   share of points whose nearest pattern is that of their label
        sliced_wasserstein            distance to as many true points of the class, 1,000 at most
        mmd                           squared maximum mean discrepancy to these; may be slightly negative
        total_variation, kl           from the points' histogram to the exact probabilities of its cells
        saturation                    share of |x| > 1 before clamping

    The intervals of the shares ``off_curve`` and ``own_pattern`` are Wilson's. Others come from points resampled within
    each class; those of ``sliced_wasserstein`` to ``kl`` are moved to the value, because repeated points bias them
    upwards. Extra samples count in the values of their class, but not in its weight.
    """

    measured: Mapping[str, Interval]
    per_class: Sequence[Mapping[str, Any]]
    """For each class ``class``, ``class_name``, ``count``, its measures (nan without samples), ``_low`` and ``_high``
    of its shares, and ``share``: the share of the samples of any label, without the extra ones, to which it is the
    nearest pattern."""


def measure_points(
    samples: LabelledSamples, patterns: Sequence[Pattern], class_names: Sequence[str], seed: int = 0
) -> PointMeasurement:
    """Measure at least one sample against the pattern of its label, as ``PointMeasurement`` describes.

    ``seed`` decides the true points and the resampling.
    """
    distances = torch.stack([pattern.distance(samples.samples) for pattern in patterns], dim=1)
    size, counted = len(patterns), samples.counted.labels
    count, frequency = samples.labels.bincount(minlength=size), counted.bincount(minlength=size)
    groups = count.nonzero().flatten().tolist()
    found = {label: _measure_class(samples, distances, label, patterns[label], seed) for label in groups}
    measured = {name: _mean([found[label][name] for label in groups], frequency[groups]) for name in found[groups[0]]}
    successes, weights = _shares(distances, samples.labels), (frequency / count)[samples.labels]
    nearest = distances[: len(counted)].argmin(1).bincount(minlength=size) / len(counted)
    per_class = [
        {"class": label, "class_name": name, "count": int(count[label])}
        | {measure: found[label][measure].value if label in found else math.nan for measure in measured}
        | _ends(
            {measure: share_interval(of_points[samples.labels == label]) for measure, of_points in successes.items()}
        )
        | {"share": nearest[label].item()}
        for label, name in enumerate(class_names)
    ]
    intervals = {name: _interval(name, one) for name, one in measured.items()}
    shares = {name: share_interval(of_points, weights) for name, of_points in successes.items()}
    return PointMeasurement(intervals | shares, per_class)


def _shares(distances: Float[Tensor, "n classes"], labels: Int[Tensor, " n"]) -> dict[str, Bool[Tensor, " n"]]:
    """Return, for each measure that is a share, whether each point is a success."""
    own = distances.gather(1, labels[:, None]).squeeze(1)
    return {"off_curve": own > TOLERANCE, "own_pattern": distances.argmin(1) == labels}


def _ends(shares: Mapping[str, Interval]) -> dict[str, float]:
    """Return the ends of the intervals, named after their measures with ``_low`` and ``_high``."""
    return {f"{name}_{end}": getattr(one, end) for name, one in shares.items() for end in ("low", "high")}


def distances_to_own(
    points: Float[Tensor, "n 2"], labels: Int[Tensor, " n"], patterns: Sequence[Pattern]
) -> Float[Tensor, " n"]:
    """Return the distance of each point to the curve of its label."""
    distances = torch.zeros(len(points), dtype=torch.float64)
    for label, pattern in enumerate(patterns):
        distances[labels == label] = pattern.distance(points[labels == label])
    return distances


def floors_of(
    patterns: Sequence[Pattern],
    class_names: Sequence[str],
    labels: Int[Tensor, " n"],
    num_extra: int = 0,
    seed: int = 0,
) -> dict[str, float]:
    """Return the measures of true points with these labels: the best a sampler can reach."""
    generator = generator_for("cpu", seed, len(patterns) + 1, 1)
    points = torch.zeros(len(labels), 2)
    for label, pattern in enumerate(patterns):
        of_class = labels == label
        points[of_class] = pattern.generate(int(of_class.sum()), generator)
    true = LabelledSamples(points, labels, torch.zeros(len(labels)), num_extra)
    found = measure_points(true, patterns, class_names, seed)
    return {name: found.measured[name].value for name in MEASURES}


def sorted_projections(points: Float[Tensor, "n 2"]) -> Float[Tensor, "n directions"]:
    """Return the points' coordinates along ``DIRECTIONS`` lines, each line sorted."""
    angle = (torch.arange(DIRECTIONS, dtype=torch.float64) + 0.5) / DIRECTIONS * math.pi
    return (points.double() @ torch.stack([angle.cos(), angle.sin()])).sort(0).values


def sliced_wasserstein(
    first: Float[Tensor, "n directions"], second: Float[Tensor, "n directions"]
) -> Float[Tensor, ""]:
    r"""Return ``(mean over directions u of W_2(u^T X, u^T Y)^2)^(1/2)`` of sets X and Y of equal size.

    The arguments are the ``sorted_projections`` of X and Y: on a line the optimal transport keeps the order. For sets
    that differ by a shift d the result is ``|d| / sqrt(2)`` (Bonneel et al. 2015, section 3).
    """
    return (second - first).square().mean().sqrt()


def gaussian_kernel(bandwidth: float) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the function ``exp(-|x - y|^2 / (2 bandwidth^2))`` of all pairs of two sets."""
    return lambda x, y: (-torch.cdist(x, y).square() / (2 * bandwidth**2)).exp()


def median_distance(points: Float[Tensor, "n 2"]) -> float:
    """Return the median distance between two of the points: the usual bandwidth (Gretton et al. 2012, section 8)."""
    return torch.pdist(points.double()).median().item()


def grid_edges() -> Float[Tensor, " edges"]:
    """Return the coordinates that separate the cells of the grid, the same in both directions."""
    return torch.linspace(-GRID_EDGE, GRID_EDGE, CELLS + 1, dtype=torch.float64)


def total_variation(shares: Float[Tensor, "*batch cells"], mass: Float[Tensor, " cells"]) -> Float[Tensor, "*batch"]:
    """Return ``sum |p - q| / 2`` over cells and the rest of the plane, with shares p of points and probabilities q."""
    share, mass = _with_the_rest(shares, mass)
    return (share - mass).abs().sum(-1) / 2


def kl_divergence(shares: Float[Tensor, "*batch cells"], mass: Float[Tensor, " cells"]) -> Float[Tensor, "*batch"]:
    """Return ``KL(p, q) = sum p log(p / q)`` over cells and rest, with p and q as in ``total_variation``."""
    share, mass = _with_the_rest(shares, mass)
    return torch.special.xlogy(share, share / mass.clamp(min=MIN_CELL_PROBABILITY)).sum(-1)


def cells_of(points: Float[Tensor, "n 2"], edges: Float[Tensor, " edges"]) -> Int[Tensor, " n"]:
    """Return the number of the cell of each point, row by row from below; one past the last for points outside."""
    column, row = (torch.bucketize(points.double(), edges) - 1).unbind(1)
    size = len(edges) - 1
    inside = (column >= 0) & (column < size) & (row >= 0) & (row < size)
    return torch.where(inside, row * size + column, size**2)


class _Resampled(NamedTuple):
    """A value, and its values for resampled points."""

    value: float
    resampled: Float[Tensor, " resamples"]


def _measure_class(
    samples: LabelledSamples, distances: Float[Tensor, "n classes"], label: int, pattern: Pattern, seed: int
) -> dict[str, _Resampled]:
    of_class, generator = samples.labels == label, generator_for("cpu", seed, label + 1)
    points, to_all = samples.samples[of_class].double(), distances[of_class]
    to_own = to_all[:, label]
    few = points[:SET_LIMIT]
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
        **_compare_with_points(few, true, few_rows),
        **_compare_with_density(points, pattern, rows),
    }


def _compare_with_points(
    points: Float[Tensor, "n 2"], true: Float[Tensor, "n 2"], rows: Int[Tensor, "r n"]
) -> dict[str, _Resampled]:
    projected = sorted_projections(true)
    value, *resampled = (sliced_wasserstein(projected, sorted_projections(some)) for some in (points, *points[rows]))
    found = {"sliced_wasserstein": _centred(value.item(), torch.stack(resampled))}
    if len(points) < 3:
        undefined = torch.full((len(rows),), torch.nan, dtype=torch.float64)
        return found | {"mmd": _Resampled(math.nan, undefined)}
    weights = torch.cat([torch.ones(1, len(points)), row_counts(rows, len(points))])  # all points once, then resampled
    value, *resampled = squared_mmd(true, points, weights, gaussian_kernel(median_distance(true)))
    return found | {"mmd": _centred(value.item(), torch.stack(resampled))}


def _compare_with_density(
    points: Float[Tensor, "n 2"], pattern: Pattern, rows: Int[Tensor, "r n"]
) -> dict[str, _Resampled]:
    edges = grid_edges()
    mass, cells = pattern.mass(edges).flatten(), cells_of(points, edges)
    shares = torch.cat([_histograms(cells[part], len(mass)) for part in rows.split(CHUNK)])
    once = _histograms(cells[None], len(mass))
    measures: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"total_variation": total_variation, "kl": kl_divergence}
    return {name: _centred(measure(once, mass).item(), measure(shares, mass)) for name, measure in measures.items()}


def _histograms(cells: Int[Tensor, "r n"], count: int) -> Float[Tensor, "r {count}"]:
    """Return the share of the points in each cell; points outside make up what is missing to 1."""
    return row_counts(cells, count + 1)[:, :count].double() / cells.shape[1]


def _with_the_rest(
    shares: Float[Tensor, "*batch cells"], mass: Float[Tensor, " cells"]
) -> tuple[Float[Tensor, "*batch cells+1"], Float[Tensor, " cells+1"]]:
    """Return both with one more cell, the rest of the plane, that holds what is missing to 1."""
    share, all_mass = (torch.cat([x, (1 - x.sum(-1, keepdim=True)).clamp(min=0)], dim=-1) for x in (shares, mass))
    return share, all_mass


def _centred(value: float, resampled: Float[Tensor, " r"]) -> _Resampled:
    """Return the resampled values moved so that their mean is the value."""
    return _Resampled(value, resampled - (resampled.nanmean() - value))


def _interval(name: str, found: _Resampled) -> Interval:
    value, low, high = percentile_interval(found.value, found.resampled)
    return Interval(value, low if name == "mmd" else max(low, 0.0), high)


def _mean(classes: Sequence[_Resampled], weights: Int[Tensor, " classes"]) -> _Resampled:
    """Return the weighted mean; classes of weight 0, which may be nan, are left out."""
    kept, weights = [one for one, weight in zip(classes, weights, strict=True) if weight], weights[weights > 0].double()
    weights = weights / weights.sum()
    values = torch.tensor([one.value for one in kept], dtype=torch.float64)
    return _Resampled((weights @ values).item(), weights @ torch.stack([one.resampled.double() for one in kept]))
