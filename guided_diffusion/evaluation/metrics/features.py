"""How like the real ones are generated features: as a whole, and sample by sample."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

CHUNK = 1000
"""Rows of a matrix of distances that are held at a time: with 10,000 columns, 80 MB."""


@dataclass(frozen=True)
class Gaussian:
    """What the Fréchet distance knows of a set of features, in float64."""

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]

    @cached_property
    def root(self) -> Float[Tensor, "d d"]:
        """The symmetric square root of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return vectors * values.clamp(min=0).sqrt() @ vectors.T


class ManifoldScores(NamedTuple):
    """One number per sample; the mean of each is the score that it is called after."""

    precision: Float[Tensor, " n_gen"]
    """1 where the generated sample lies within the manifold of the real ones."""
    recall: Float[Tensor, " n_real"]
    """1 where the real sample lies within the manifold of the generated ones."""
    density: Float[Tensor, " n_gen"]
    """How many balls of real samples hold the generated one, divided by k."""
    coverage: Float[Tensor, " n_real"]
    """1 where the ball of the real sample holds a generated one."""


class _Identity(nn.Module):
    """Features for torchmetrics that are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
        return features


def frechet_distance(real: Float[Tensor, "n_real d"], generated: Float[Tensor, "n_gen d"]) -> float:
    """|m_r - m_g|^2 + tr(S_r + S_g - 2 (S_r S_g)^(1/2)), with means m and covariances S, by torchmetrics.

    nan if there are fewer than two of either (Heusel et al. 2017, arXiv 1706.08500, eq. 6).
    """
    if min(len(real), len(generated)) < 2:
        return torch.nan
    metric = FrechetInceptionDistance(_Identity(real.shape[1]))
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    return metric.compute().item()


def gaussian_of(features: Float[Tensor, "n d"]) -> Gaussian:
    """Mean and unbiased covariance, of at least two features."""
    features = features.double()
    mean = features.mean(0)
    deviations = features - mean
    return Gaussian(mean, deviations.T @ deviations / (len(features) - 1))


def gaussian_distance(first: Gaussian, second: Gaussian) -> float:
    """``frechet_distance`` of two Gaussians, quick enough for a bootstrap of the second: the first keeps its root.

    tr (S_1 S_2)^(1/2) is the sum of the roots of the eigenvalues of S_1^(1/2) S_2 S_1^(1/2), which is symmetric.
    """
    overlap = torch.linalg.eigvalsh(first.root @ second.covariance @ first.root).clamp(min=0).sqrt().sum()
    spread = first.covariance.trace() + second.covariance.trace() - 2 * overlap
    return ((first.mean - second.mean).square().sum() + spread).item()


def kernel_distance(
    real: Float[Tensor, "n_real d"],
    generated: Float[Tensor, "n_gen d"],
    subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 0,
) -> float:
    """The squared maximum mean discrepancy under the kernel (x.y / d + 1)^3, by torchmetrics.

    The mean of the unbiased estimate (Bińkowski et al. 2018, arXiv 1801.01401, eq. 4) over random subsets of both
    sets; nan where a subset is a single sample.

    Args:
        real: their features.
        generated: theirs.
        subsets: how many.
        subset_size: samples of each set in a subset; None for all of the smaller set, but at most 1,000.
        seed: of the subsets; the global random state is left as it was.
    """
    size = min(1000, len(real), len(generated)) if subset_size is None else subset_size
    if size < 2:
        return torch.nan
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save")
        metric = KernelInceptionDistance(_Identity(real.shape[1]), subsets=subsets, subset_size=size)
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return metric.compute()[0].item()


def _cubic(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    return (x @ y.T / x.shape[1] + 1) ** 3


def kernel_discrepancies(
    real: Float[Tensor, "m d"],
    generated: Float[Tensor, "n d"],
    weights: Float[Tensor, "r n"],
    kernel: Callable[[Tensor, Tensor], Tensor] = _cubic,
) -> Float[Tensor, " r"]:
    """The squared maximum mean discrepancy of all samples at once, for each row of weights.

    With x real, y generated and w_j how often y_j was drawn:

        sum_{i != j} k(x_i, x_j) / (m (m - 1)) + sum_{i != j} w_i w_j k(y_i, y_j) / sum_{i != j} w_i w_j
            - 2 sum_{ij} w_j k(x_i, y_j) / (m sum_j w_j)

    With w = 1 that is the unbiased estimate (Gretton et al. 2012, JMLR 13, eq. 3). nan where a set has no pair.

    Args:
        real: their features.
        generated: theirs.
        weights: w.
        kernel: k of all pairs of two sets, n x d and m x d to n x m; by default that of ``kernel_distance``.
    """
    within_real = pair_mean(real, torch.ones(1, len(real)), kernel)
    return within_real + kernel_discrepancies_up_to_a_constant(real, generated, weights, kernel)


def kernel_discrepancies_up_to_a_constant(
    real: Float[Tensor, "m d"],
    generated: Float[Tensor, "n d"],
    weights: Float[Tensor, "r n"],
    kernel: Callable[[Tensor, Tensor], Tensor] = _cubic,
) -> Float[Tensor, " r"]:
    """``kernel_discrepancies`` without its first term, which is the same for every row of weights."""
    real, generated, weights = real.double(), generated.double(), weights.double()
    between = torch.cat([kernel(generated[rows], real).mean(1) for rows in _chunks(len(generated))])
    return pair_mean(generated, weights, kernel) - 2 * (weights @ between) / weights.sum(1)


def manifold_scores(real: Float[Tensor, "n_real d"], generated: Float[Tensor, "n_gen d"], k: int = 5) -> ManifoldScores:
    """Which samples lie in the manifold of the other set: in the union of balls B around its samples.

    With B(x) the open ball around x that reaches to its k-th nearest neighbour in its own set,

        precision_j = 1 if y_j is in some B(x_i)      recall_i   = 1 if x_i is in some B(y_j)
        density_j   = #{i: y_j is in B(x_i)} / k      coverage_i = 1 if some y_j is in B(x_i)

    for real x_i and generated y_j (Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 1 to 3; Naeem et al. 2020,
    arXiv 2002.09797, eq. 3 to 6, whose authors' code has open balls in all four). Where a set has too few samples to
    have a k-th neighbour, what needs its balls is nan. Euclidean distances, a chunk at a time, in float64.
    """
    real, generated = real.double(), generated.double()
    real_radii, generated_radii = _radii(real, k), _radii(generated, k)
    density, recalled, covered = torch.empty(len(generated)).double(), torch.zeros(len(real)), torch.zeros(len(real))
    for rows, distances in _distances(generated, real):
        within = distances < real_radii
        density[rows] = within.sum(1) / k
        covered = covered.logical_or(within.any(0))
        recalled = recalled.logical_or((distances < generated_radii[rows, None]).any(0))
    of_real, of_generated = _number(real_radii), _number(generated_radii)
    return ManifoldScores(
        (density > 0) * of_real, recalled * of_generated, density * of_real, covered.double() * of_real
    )


def _radii(features: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """The distance of each to its k-th nearest neighbour; nan where there is none."""
    if len(features) <= k:
        return torch.full((len(features),), torch.nan, dtype=features.dtype)
    return torch.cat([distances.kthvalue(k + 1).values for _, distances in _distances(features, features)])


def _number(radii: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """1, or nan if there are no radii."""
    return radii[0] * 0 + 1


def _distances(rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"]) -> Iterator[tuple[slice, Tensor]]:
    """Euclidean distances: some rows at a time, and which."""
    for chunk in _chunks(len(rows)):
        yield chunk, torch.cdist(rows[chunk], columns)


def _chunks(count: int) -> Iterator[slice]:
    yield from (slice(start, start + CHUNK) for start in range(0, count, CHUNK))


def within_class_diversity(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], num_classes: int
) -> Float[Tensor, " classes"]:
    """Mean Euclidean distance between two different samples of a class; nan for a class with fewer than two."""
    groups = [features[labels == label] for label in range(num_classes)]
    return torch.cat([pair_mean(group, torch.ones(1, len(group))) for group in groups])


def pair_mean(
    features: Float[Tensor, "n d"],
    weights: Float[Tensor, "r n"],
    measure: Callable[[Tensor, Tensor], Tensor] = torch.cdist,
) -> Float[Tensor, " r"]:
    """sum_ij w_i w_j f(x_i, x_j) / sum_ij w_i w_j over i != j, for each row of weights: by default the mean distance.

    With w_i how often x_i was drawn, it is that of a resampled set, whose pairs of a sample and itself are left out.
    nan where no pair is left.

    Args:
        features: x.
        weights: w.
        measure: f of all pairs of two sets, n x d and m x d to n x m.
    """
    features, weights = features.double(), weights.double()
    total = torch.zeros(len(weights), dtype=torch.float64)
    for rows in _chunks(len(features)):
        values = measure(features[rows], features)
        values.diagonal(rows.start).zero_()
        total += (weights[:, rows] * (weights @ values.T)).sum(1)
    return total / (weights.sum(1).square() - weights.square().sum(1))


def nearest_distances(images: Float[Tensor, "n *shape"], reference: Float[Tensor, "m *shape"]) -> Float[Tensor, " n"]:
    """Distance of each image to the nearest reference image: the root mean square over its pixels, in float32.

    Which one is nearest follows from |x - r|^2 = |x|^2 + |r|^2 - 2 x.r; the distance to it is then taken directly, so
    that a copy has distance 0.
    """
    images, reference = images.float().flatten(1), reference.float().flatten(1)
    norms = reference.square().sum(1)
    chunks = images.split(CHUNK // 4)
    nearest = [torch.addmm(norms, chunk, reference.T, alpha=-2).argmin(1) for chunk in chunks]
    return (images - reference[torch.cat(nearest)]).square().mean(1).sqrt()
