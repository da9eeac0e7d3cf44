import math
import warnings
from itertools import product

import numpy as np
import prdc
import pytest
import scipy.linalg
import torch
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from guided_diffusion.evaluation.metrics.features import (
    fit_gaussian,
    frechet_distance,
    kernel_distance,
    manifold_scores,
    mean_over_pairs,
    nearest_distances,
    squared_mmd,
    squared_mmd_up_to_a_constant,
    within_class_diversity,
)

F64 = torch.float64


@pytest.fixture
def small_chunks(monkeypatch):
    """Call the result to have matrices computed ten rows at a time, or as many as it is given."""
    return lambda rows=10: monkeypatch.setattr("guided_diffusion.evaluation.metrics.features.CHUNK", rows)


class Features(nn.Module):
    """An extractor for torchmetrics of images that are features already."""

    def __init__(self, num_features):
        super().__init__()
        self.num_features = num_features

    def forward(self, features):
        return features


def updated(metric, real, generated):
    metric.update(real.double(), real=True)
    metric.update(generated.double(), real=False)
    return metric


# Fréchet distance


def test_a_weighted_gaussian_has_numpys_weighted_moments():
    features, weights = torch.randn(30, 3, dtype=F64), torch.rand(30, dtype=F64)
    found = fit_gaussian(features, 7 * weights)
    assert found.mean.numpy() == pytest.approx(np.average(features, axis=0, weights=weights))
    assert found.covariance.numpy() == pytest.approx(np.cov(features.T, aweights=weights))
    plain, equal = fit_gaussian(features), fit_gaussian(features, torch.full((30,), 3.0))
    torch.testing.assert_close(vars(plain), vars(equal))


def test_weights_of_real_features_weigh_their_terms_of_the_squared_mmd():
    real, generated, weights = torch.randn(5, 2, dtype=F64), torch.randn(4, 2, dtype=F64), torch.rand(5, dtype=F64)
    within, between = (real @ real.T / 2 + 1) ** 3, (real @ generated.T / 2 + 1) ** 3
    pairs = weights[:, None] * weights * (1 - torch.eye(5))
    expected = (pairs * within).sum() / pairs.sum() - 2 * (weights @ between).mean() / weights.sum()
    once = torch.ones(1, 4)
    expected += mean_over_pairs(generated, once, lambda x, y: (x @ y.T / 2 + 1) ** 3).item()
    assert squared_mmd(real, generated, once, real_weights=weights).item() == pytest.approx(expected.item())


def fld(real, generated):
    return frechet_distance(fit_gaussian(real), fit_gaussian(generated))


def with_moments(mean, deviations, count=60):
    """Features with exactly this mean, and a diagonal covariance with exactly these deviations."""
    draws = torch.randn(count, len(mean), dtype=F64)
    white, _ = torch.linalg.qr(draws - draws.mean(0))
    return torch.tensor(mean) + white * (count - 1) ** 0.5 * torch.tensor(deviations)


def test_the_frechet_distance_of_independent_features_is_that_of_means_and_deviations():
    real, generated = with_moments([1.0, 2.0, 0.0], [1.0, 2.0, 0.5]), with_moments([0.0, 2.0, 2.0], [3.0, 2.0, 0.0])
    assert fld(real, generated) == pytest.approx(1 + 4 + (3 - 1) ** 2 + 0.5**2, rel=1e-6)


@pytest.mark.parametrize("count", [50, 4], ids=["many", "fewer than there are features"])
def test_the_frechet_distance_is_that_of_torchmetrics_and_of_the_matrix_root(count):
    real, generated = (torch.randn(n, 6, dtype=F64) @ torch.randn(6, 6, dtype=F64) for n in (80, count))
    mean, covariance = real.mean(0) - generated.mean(0), (np.cov(real.T.numpy()), np.cov(generated.T.numpy()))
    root = scipy.linalg.sqrtm(covariance[0] @ covariance[1]).real
    expected = mean.square().sum().item() + np.trace(covariance[0] + covariance[1] - 2 * root)
    reference = updated(FrechetInceptionDistance(Features(6)), real, generated).compute().item()
    assert fld(real, generated) == pytest.approx(expected, rel=1e-6)
    assert fld(real, generated) == pytest.approx(reference, rel=1e-6)


def test_the_frechet_distance_of_a_set_to_itself_is_zero():
    features = torch.randn(30, 5)
    assert fld(features, features) == pytest.approx(0, abs=1e-6)


def test_the_frechet_distance_keeps_its_digits_for_single_precision_features_far_from_zero():
    real, generated = 100 + torch.randn(200, 3), 100 + torch.randn(200, 3)
    assert fld(real, generated) == pytest.approx(fld(real.double() - 100, generated.double() - 100), rel=1e-6)


@pytest.mark.parametrize("distance", [fld, kernel_distance])
@pytest.mark.parametrize("counts", [(1, 5), (5, 1)])
def test_distances_of_a_single_sample_are_nan(distance, counts):
    real, generated = (torch.randn(count, 3) for count in counts)
    assert math.isnan(distance(real, generated))


# Kernel distance


def naive_squared_mmd(x, y, weights=None):
    """The definition, one pair of samples after the other."""

    def kernel(a, b):
        return (a @ b / len(a) + 1).item() ** 3

    def within(z, w):
        pairs = [(i, j) for i, j in product(range(len(z)), repeat=2) if i != j]
        return np.average([kernel(z[i], z[j]) for i, j in pairs], weights=[w[i] * w[j] for i, j in pairs])

    weights = np.ones(len(y)) if weights is None else weights
    between = np.average([np.mean([kernel(a, b) for a in x]) for b in y], weights=weights)
    return within(x, np.ones(len(x))) + within(y, weights) - 2 * between


def test_the_kernel_distance_of_whole_sets_is_the_unbiased_squared_mmd():
    real, generated = torch.randn(9, 3, dtype=F64), torch.randn(9, 3, dtype=F64) + 1
    assert kernel_distance(real, generated, subsets=3) == pytest.approx(naive_squared_mmd(real, generated))


@pytest.mark.parametrize("counts", [(60, 45), (45, 60)])
def test_the_kernel_distance_is_that_of_torchmetrics_with_the_same_seed(counts):
    real, generated = (torch.randn(count, 5) for count in counts)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Metric `Kernel Inception Distance` will save")
        metric = KernelInceptionDistance(Features(5), subsets=20, subset_size=30)
    updated(metric, real, generated + 0.3)
    torch.manual_seed(7)
    expected = metric.compute()[0].item()
    assert kernel_distance(real, generated + 0.3, subsets=20, subset_size=30, seed=7) == pytest.approx(expected)


def test_the_kernel_distance_is_the_mean_over_subsets_of_the_given_size():
    real, generated = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[5.0], [6.0]])
    possible = [naive_squared_mmd(real[list(rows)], generated) for rows in ((0, 1), (0, 2), (1, 2))]
    single = {round(kernel_distance(real, generated, subsets=1, seed=seed), 6) for seed in range(40)}
    assert single == {round(value, 6) for value in possible}
    error = np.std(possible) / 20
    assert kernel_distance(real, generated, subsets=400) == pytest.approx(np.mean(possible), abs=3 * error)


def test_the_kernel_distance_depends_on_its_seed_and_leaves_the_global_random_state_alone():
    real, generated = torch.randn(40, 3), torch.randn(50, 3)
    before = torch.random.get_rng_state()
    first = kernel_distance(real, generated, subset_size=10, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert kernel_distance(real, generated, subset_size=10, seed=1) == first
    assert kernel_distance(real, generated, subset_size=10, seed=2) != first


@pytest.mark.parametrize("drawn", [[1, 1, 1, 1], [1, 1, 0, 0], [3, 0, 2, 1]])
def test_the_squared_mmd_of_repeated_samples_leaves_out_pairs_of_a_sample_with_itself(drawn, small_chunks):
    small_chunks(2)
    real, generated = torch.randn(5, 3, dtype=F64), torch.randn(4, 3, dtype=F64) + 1
    weights = torch.tensor([drawn], dtype=F64)
    found = squared_mmd(real, generated, weights).item()
    assert found == pytest.approx(naive_squared_mmd(real, generated, np.array(drawn)))


def test_the_squared_mmd_is_nan_where_a_set_has_no_pair():
    assert squared_mmd(torch.randn(5, 3), torch.randn(4, 3), torch.tensor([[4.0, 0, 0, 0]])).isnan().all()


def test_the_constant_that_is_left_out_is_the_same_for_all_weights():
    real, generated = torch.randn(5, 3), torch.randn(4, 3)
    weights = torch.tensor([[1.0, 1, 1, 1], [3, 0, 2, 1]])
    constant = squared_mmd(real, generated, weights) - squared_mmd_up_to_a_constant(real, generated, weights)
    assert constant[0].item() == pytest.approx(constant[1].item())


# Manifold scores


@pytest.mark.parametrize("shift", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("k", [1, 5])
def test_manifold_scores_are_those_of_the_authors_code(shift, k):
    real, generated = torch.randn(70, 4, dtype=F64), 0.7 * torch.randn(50, 4, dtype=F64) + shift
    expected = prdc.compute_prdc(real.numpy(), generated.numpy(), nearest_k=k)
    found = {name: values.mean().item() for name, values in manifold_scores(real, generated, k)._asdict().items()}
    assert found == pytest.approx(expected)


def test_manifold_scores_of_samples_on_a_line():
    """The balls around 0, 1 and 5 have radii 1, 1 and 4; those around 0.5, 3 and 20 have radii 2.5, 2.5 and 17."""
    real, generated = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.5], [3.0], [20.0]])
    found = manifold_scores(real, generated, k=1)
    assert found.precision.tolist() == [1, 1, 0]
    assert found.recall.tolist() == [1, 1, 1]
    assert found.density.tolist() == [2, 1, 0]
    assert found.coverage.tolist() == [1, 1, 1]
    assert manifold_scores(real, generated[2:].repeat(2, 1), k=1).recall.tolist() == [0, 0, 0]


def test_manifold_scores_do_not_depend_on_the_chunks(small_chunks):
    real, generated = torch.randn(25, 3), torch.randn(32, 3)
    whole = manifold_scores(real, generated)
    small_chunks()
    for one, other in zip(whole, manifold_scores(real, generated), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("few", "nan"), [("real", {"precision", "density", "coverage"}), ("generated", {"recall"})])
def test_scores_that_need_the_balls_of_too_few_samples_are_nan(few, nan):
    sets = {"real": torch.randn(20, 3), "generated": torch.randn(20, 3)}
    sets[few] = sets[few][:5]
    found = manifold_scores(**sets, k=5)._asdict()
    assert {name for name, values in found.items() if values.isnan().all()} == nan
    assert {name for name, values in found.items() if values.isnan().any()} == nan


# Diversity and nearest images


def test_diversity_is_the_mean_distance_of_two_samples_of_a_class():
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [7.0, 7.0], [1.0, 0.0], [1.0, 2.0]])
    diversity = within_class_diversity(features, torch.tensor([0, 0, 0, 1, 2, 2]), 4)
    assert diversity.tolist() == pytest.approx([10 / 3, torch.nan, 2, torch.nan], nan_ok=True)


def test_a_sample_drawn_twice_makes_no_pair_with_itself():
    features = torch.tensor([[0.0], [1.0], [4.0]])
    weights = torch.tensor([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0], [1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    assert mean_over_pairs(features, weights).tolist() == pytest.approx([8 / 3, 1, 4, torch.nan], nan_ok=True)


def test_the_mean_over_pairs_does_not_depend_on_the_chunks(small_chunks):
    features, weights = torch.randn(25, 3), torch.randint(3, (4, 25)).float()
    whole = mean_over_pairs(features, weights)
    small_chunks()
    torch.testing.assert_close(mean_over_pairs(features, weights), whole)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_distance_to_the_nearest_image_is_the_root_mean_square_over_pixels(channels):
    reference = torch.rand(6, channels, 4, 4)
    images = torch.stack([reference[3] + 0.01, reference[0] - 0.02])
    torch.testing.assert_close(nearest_distances(images, reference), torch.tensor([0.01, 0.02]))


def test_a_copy_has_distance_zero():
    reference = torch.randn(300, 3, 8, 8)
    assert nearest_distances(reference[[7, 299]], reference).tolist() == [0, 0]


def test_the_nearest_distance_does_not_depend_on_the_chunks(small_chunks):
    images, reference = torch.randn(25, 1, 4, 4), torch.randn(40, 1, 4, 4)
    whole = nearest_distances(images, reference)
    torch.testing.assert_close(whole, torch.cdist(images.flatten(1), reference.flatten(1)).amin(1) / 4)
    small_chunks(12)
    assert torch.equal(nearest_distances(images, reference), whole)
