"""Distances between real and generated features, and scores of single samples: Fréchet, MMD, manifolds, diversity."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

CHUNK = 1000  # rows of a distance matrix that are held at a time: 80 MB with 10,000 columns


@dataclass(frozen=True)
class Gaussian:
    """The mean and the covariance of a set of features, in float64."""

    mean: Float[Tensor, " d"]
    covariance: Float[Tensor, "d d"]

    @cached_property
    def root(self) -> Float[Tensor, "d d"]:
        """The symmetric square root of the covariance."""
        values, vectors = torch.linalg.eigh(self.covariance)
        return vectors * values.clamp(min=0).sqrt() @ vectors.T


class ManifoldScores(NamedTuple):
    """The values of each sample that ``manifold_scores`` defines; the mean of a field is the score of that name."""

    precision: Float[Tensor, " n_gen"]
    recall: Float[Tensor, " n_real"]
    density: Float[Tensor, " n_gen"]
    coverage: Float[Tensor, " n_real"]


def fit_gaussian(features: Float[Tensor, "n d"], weights: Float[Tensor, " n"] | None = None) -> Gaussian:
    """Return the mean and the unbiased covariance of features; the covariance of a single one is nan.

    With weights w of sum 1 these are m = sum_i w_i x_i and sum_i w_i (x_i - m) (x_i - m)^T / (1 - sum_i w_i^2).
    """
    features = features.double()
    weights = _weights_of(features, weights)
    mean = weights @ features
    deviations = features - mean
    return Gaussian(mean, (weights * deviations.T) @ deviations / (1 - weights.square().sum()))


def frechet_distance(real: Gaussian, generated: Gaussian) -> float:
    """Return |m_r - m_g|^2 + tr(S_r + S_g - 2 (S_r S_g)^(1/2)), with means m and covariances S.

    tr (S_r S_g)^(1/2) is the sum of the roots of the eigenvalues of S_r^(1/2) S_g S_r^(1/2), which is symmetric. The
    root of S_r is computed once for each Gaussian, which makes this quick enough to bootstrap the second argument.
    The distance is nan if either covariance is.

    References:
        Heusel et al. 2017, arXiv 1706.08500, eq. 6
    """
    if (real.covariance + generated.covariance).isnan().any():
        return torch.nan
    overlap = torch.linalg.eigvalsh(real.root @ generated.covariance @ real.root).clamp(min=0).sqrt().sum()
    spread = real.covariance.trace() + generated.covariance.trace() - 2 * overlap
    return ((real.mean - generated.mean).square().sum() + spread).item()


def cubic_kernel(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    """Return (x.y / d + 1)^3 for all pairs, the kernel of the kernel distance."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def kernel_distance(
    real: Float[Tensor, "n_real d"],
    generated: Float[Tensor, "n_gen d"],
    subsets: int = 100,
    subset_size: int | None = None,
    seed: int = 0,
) -> float:
    """Return the mean of the unbiased squared MMD under ``cubic_kernel`` over random subsets of both sets.

    A subset holds ``subset_size`` samples of each set, by default all of the smaller set, at most 1,000. The distance
    is nan if a subset holds a single sample.

    References:
        Bińkowski et al. 2018, arXiv 1801.01401, eq. 4
    """
    size = min(1000, len(real), len(generated)) if subset_size is None else subset_size
    generator = torch.Generator().manual_seed(seed)

    def subset(features: Float[Tensor, "n d"]) -> Float[Tensor, "size d"]:
        return features[torch.randperm(len(features), generator=generator)[:size]]

    once = torch.ones(1, size)
    return torch.cat([squared_mmd(subset(real), subset(generated), once) for _ in range(subsets)]).mean().item()


def squared_mmd(
    real: Float[Tensor, "m d"],
    generated: Float[Tensor, "n d"],
    weights: Float[Tensor, "r n"],
    kernel: Callable[[Tensor, Tensor], Tensor] = cubic_kernel,
    real_weights: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, " r"]:
    """Return the squared maximum mean discrepancy of all samples, for each row of weights.

    With x real, y generated, k the kernel and w_j how often y_j was drawn:

        sum_{i != j} k(x_i, x_j) / (m (m - 1)) + sum_{i != j} w_i w_j k(y_i, y_j) / sum_{i != j} w_i w_j
            - 2 sum_{ij} w_j k(x_i, y_j) / (m sum_j w_j)

    With w = 1 this is the unbiased estimate. It is nan where a set has no pair. ``kernel`` computes k for all pairs of
    two sets: n x d and m x d to n x m. ``real_weights`` weigh the x_i as the w_j do the y_j.

    References:
        Gretton et al. 2012, JMLR 13, eq. 3
    """
    within_real = mean_over_pairs(real, _weights_of(real, real_weights)[None], kernel)
    return within_real + squared_mmd_up_to_a_constant(real, generated, weights, kernel, real_weights)


def squared_mmd_up_to_a_constant(
    real: Float[Tensor, "m d"],
    generated: Float[Tensor, "n d"],
    weights: Float[Tensor, "r n"],
    kernel: Callable[[Tensor, Tensor], Tensor] = cubic_kernel,
    real_weights: Float[Tensor, " m"] | None = None,
) -> Float[Tensor, " r"]:
    """Return ``squared_mmd`` without its first term, which is the same for every row of weights."""
    real, generated, weights = real.double(), generated.double(), weights.double()
    shares = _weights_of(real, real_weights)
    between = torch.cat([kernel(generated[rows], real) @ shares for rows in _chunks(len(generated))])
    return mean_over_pairs(generated, weights, kernel) - 2 * (weights @ between) / weights.sum(1)


def _weights_of(features: Float[Tensor, "n d"], weights: Float[Tensor, " n"] | None) -> Float[Tensor, " n"]:
    """Return weights of sum 1, equal ones if there are none."""
    weights = torch.ones(len(features)) if weights is None else weights
    return weights.double() / weights.double().sum()


def manifold_scores(real: Float[Tensor, "n_real d"], generated: Float[Tensor, "n_gen d"], k: int = 5) -> ManifoldScores:
    """Return which samples lie in the manifold of the other set: the union of balls B around its samples.

    With B(x) the open ball around x that reaches to its k-th nearest neighbour in its own set,

        precision_j = 1 if y_j is in some B(x_i)      recall_i   = 1 if x_i is in some B(y_j)
        density_j   = #{i: y_j is in B(x_i)} / k      coverage_i = 1 if some y_j is in B(x_i)

    for real x_i and generated y_j. Distances are Euclidean, in float64, a chunk at a time. Scores that need the balls
    of a set with at most k samples are nan.

    References:
        Kynkäänniemi et al. 2019, arXiv 1904.06991, eq. 1 to 3
        Naeem et al. 2020, arXiv 2002.09797, eq. 3 to 6; open balls in all four as in the authors' code
    """
    real, generated = real.double(), generated.double()
    real_radii, generated_radii = _radii(real, k), _radii(generated, k)
    density, recalled, covered = torch.empty(len(generated)).double(), torch.zeros(len(real)), torch.zeros(len(real))
    for rows, distances in _distances(generated, real):
        within = distances < real_radii
        density[rows] = within.sum(1) / k
        covered = covered.logical_or(within.any(0))
        recalled = recalled.logical_or((distances < generated_radii[rows, None]).any(0))
    real_defined, generated_defined = (radii[0] * 0 + 1 for radii in (real_radii, generated_radii))  # 1, or nan
    return ManifoldScores(
        precision=(density > 0) * real_defined,
        recall=recalled * generated_defined,
        density=density * real_defined,
        coverage=covered.double() * real_defined,
    )


def _radii(features: Float[Tensor, "n d"], k: int) -> Float[Tensor, " n"]:
    """Return the distance of each sample to its k-th nearest neighbour, nan if there are too few samples."""
    if len(features) <= k:
        return torch.full((len(features),), torch.nan, dtype=features.dtype)
    return torch.cat([distances.kthvalue(k + 1).values for _, distances in _distances(features, features)])


def _distances(rows: Float[Tensor, "n d"], columns: Float[Tensor, "m d"]) -> Iterator[tuple[slice, Tensor]]:
    """Yield chunks of rows and their Euclidean distances to all columns."""
    for chunk in _chunks(len(rows)):
        yield chunk, torch.cdist(rows[chunk], columns)


def _chunks(count: int) -> Iterator[slice]:
    yield from (slice(start, start + CHUNK) for start in range(0, count, CHUNK))


def within_class_diversity(
    features: Float[Tensor, "n d"], labels: Int[Tensor, " n"], num_classes: int
) -> Float[Tensor, " classes"]:
    """Return the mean distance between two different samples of a class; nan for a class with fewer than two."""
    groups = [features[labels == label] for label in range(num_classes)]
    return torch.cat([mean_over_pairs(group, torch.ones(1, len(group))) for group in groups])


def mean_over_pairs(
    features: Float[Tensor, "n d"],
    weights: Float[Tensor, "r n"],
    function: Callable[[Tensor, Tensor], Tensor] = torch.cdist,
) -> Float[Tensor, " r"]:
    """Return sum_ij w_i w_j f(x_i, x_j) / sum_ij w_i w_j over i != j, for each row of weights.

    If w_i is how often x_i was drawn, this is the mean over the pairs of a resampled set, where a sample makes no
    pair with itself. It is nan where no pair is left. ``function`` computes f for all pairs of two sets, n x d and
    m x d to n x m; by default it is the distance.
    """
    features, weights = features.double(), weights.double()
    total = torch.zeros(len(weights), dtype=torch.float64)
    for rows in _chunks(len(features)):
        values = function(features[rows], features)
        values.diagonal(rows.start).zero_()
        total += (weights[:, rows] * (weights @ values.T)).sum(1)
    return total / (weights.sum(1).square() - weights.square().sum(1))


def nearest_distances(images: Float[Tensor, "n *shape"], reference: Float[Tensor, "m *shape"]) -> Float[Tensor, " n"]:
    """Return the root-mean-square distance over pixels from each image to its nearest reference image, in float32.

    The nearest one follows from |x - r|^2 = |x|^2 + |r|^2 - 2 x.r. The distance to it is then computed directly, so
    that a copy has distance 0.
    """
    images, reference = images.float().flatten(1), reference.float().flatten(1)
    norms = reference.square().sum(1)
    nearest = [torch.addmm(norms, some, reference.T, alpha=-2).argmin(1) for some in images.split(CHUNK // 4)]
    return (images - reference[torch.cat(nearest)]).square().mean(1).sqrt()
