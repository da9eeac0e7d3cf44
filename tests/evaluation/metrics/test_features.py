import warnings

import numpy as np
import prdc
import pytest
import scipy.linalg
import torch

from guided_diffusion.evaluation.metrics.features import (
    _Identity,
    frechet_distance,
    gaussian_distance,
    gaussian_of,
    kernel_discrepancies,
    kernel_distance,
    manifold_scores,
    nearest_distances,
    pair_mean,
    within_class_diversity,
)

F64 = torch.float64


def with_moments(mean, deviations, count=60):
    """Features whose mean is exactly this, and whose covariance is diagonal with exactly these deviations."""
    draws = torch.randn(count, len(mean), dtype=F64)
    white, _ = torch.linalg.qr(draws - draws.mean(0))
    return torch.tensor(mean) + white * (count - 1) ** 0.5 * torch.tensor(deviations)


def frechet_distances(real, generated):
    """By torchmetrics, and from the moments."""
    return frechet_distance(real, generated), gaussian_distance(gaussian_of(real), gaussian_of(generated))


def test_the_frechet_distance_of_independent_features_is_that_of_means_and_deviations():
    real, generated = with_moments([1.0, 2.0, 0.0], [1.0, 2.0, 0.5]), with_moments([0.0, 2.0, 2.0], [3.0, 2.0, 0.0])
    for distance in frechet_distances(real, generated):
        assert distance == pytest.approx(1 + 4 + (3 - 1) ** 2 + 0.5**2, rel=1e-6)


@pytest.mark.parametrize("count", [50, 4], ids=["many", "fewer than there are features"])
def test_the_frechet_distance_of_correlated_features_is_that_of_the_matrix_root(count):
    real, generated = (torch.randn(n, 6, dtype=F64) @ torch.randn(6, 6, dtype=F64) for n in (80, count))
    mean, covariance = real.mean(0) - generated.mean(0), (np.cov(real.T.numpy()), np.cov(generated.T.numpy()))
    root = scipy.linalg.sqrtm(covariance[0] @ covariance[1]).real
    expected = mean.square().sum().item() + np.trace(covariance[0] + covariance[1] - 2 * root)
    for distance in frechet_distances(real, generated):
        assert distance == pytest.approx(expected, rel=1e-6)


def test_a_set_has_no_frechet_distance_to_itself():
    features = torch.randn(30, 5)
    assert frechet_distances(features, features) == pytest.approx((0, 0), abs=1e-6)


def test_single_precision_does_not_cost_the_frechet_distance_its_digits():
    """Sums of squares far from zero lose their digits in single precision."""
    real, generated = 100 + torch.randn(200, 3), 100 + torch.randn(200, 3)
    distances = frechet_distances(real, generated)
    assert distances == pytest.approx(frechet_distances(real.double() - 100, generated.double() - 100), rel=1e-6)


@pytest.mark.parametrize("counts", [(1, 5), (5, 1)])
def test_one_sample_has_no_frechet_and_no_kernel_distance(counts):
    real, generated = (torch.randn(count, 3) for count in counts)
    assert np.isnan(frechet_distance(real, generated))
    assert np.isnan(kernel_distance(real, generated, subsets=4))


def test_features_reach_torchmetrics_as_they_are():
    features = torch.randn(4, 7)
    assert _Identity(7)(features) is features
    assert _Identity(7).num_features == 7


def squared_discrepancy(x, y):
    """The unbiased estimate, one pair of samples after the other."""

    def kernel(a, b):
        return (a @ b / len(a) + 1).item() ** 3

    within = [
        np.mean([kernel(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j])  # of one set
        for z in (x, y)
    ]
    return sum(within) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_the_kernel_distance_of_whole_sets_is_the_unbiased_discrepancy():
    real, generated = torch.randn(9, 3, dtype=F64), torch.randn(9, 3, dtype=F64) + 1
    assert kernel_distance(real, generated, subsets=3) == pytest.approx(squared_discrepancy(real, generated))


def test_the_kernel_distance_is_the_mean_over_subsets_of_the_size_asked_for():
    real, generated = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[5.0], [6.0]])
    possible = [squared_discrepancy(real[list(rows)], generated) for rows in ((0, 1), (0, 2), (1, 2))]
    single = {round(kernel_distance(real, generated, subsets=1, seed=seed), 6) for seed in range(40)}
    assert single == {round(value, 6) for value in possible}
    error = np.std(possible) / 20
    assert kernel_distance(real, generated, subsets=400) == pytest.approx(np.mean(possible), abs=3 * error)


def test_discrepancies_of_all_pairs_are_the_unbiased_one_for_each_row_of_weights(monkeypatch):
    """A sample that was drawn three times makes a pair with every other one three times, and with itself never."""
    monkeypatch.setattr("guided_diffusion.evaluation.metrics.features.CHUNK", 2)
    real, generated = torch.randn(5, 3, dtype=F64), torch.randn(4, 3, dtype=F64) + 1
    weights = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [3, 0, 2, 1]], dtype=F64)

    def kernel(a, b):
        return (a @ b / 3 + 1).item() ** 3

    def weighted(w):
        pairs = [(i, j) for i in range(4) for j in range(4) if i != j]
        within = np.average(
            [kernel(generated[i], generated[j]) for i, j in pairs], weights=[w[i] * w[j] for i, j in pairs]
        )
        return within - 2 * np.average([np.mean([kernel(x, y) for x in real]) for y in generated], weights=w)

    within_real = np.mean([kernel(a, b) for i, a in enumerate(real) for j, b in enumerate(real) if i != j])
    found = kernel_discrepancies(real, generated, weights)
    assert found.tolist() == pytest.approx([within_real + weighted(row.numpy()) for row in weights])
    expected = [squared_discrepancy(real, generated), squared_discrepancy(real, generated[:2])]
    assert found[:2].tolist() == pytest.approx(expected)
    assert kernel_discrepancies(real, generated, torch.tensor([[4.0, 0, 0, 0]])).isnan().all()


def test_the_kernel_distance_follows_from_its_seed_and_draws_from_no_other():
    real, generated = torch.randn(40, 3), torch.randn(50, 3)
    before = torch.random.get_rng_state()
    first = kernel_distance(real, generated, subset_size=10, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert kernel_distance(real, generated, subset_size=10, seed=1) == first
    assert kernel_distance(real, generated, subset_size=10, seed=2) != first


def test_the_kernel_distance_does_not_warn():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kernel_distance(torch.randn(5, 3), torch.randn(5, 3), subsets=2)


@pytest.mark.parametrize("shift", [0.0, 1.0, 10.0])
@pytest.mark.parametrize("k", [1, 5])
def test_manifold_scores_are_those_of_their_authors(shift, k):
    real, generated = torch.randn(70, 4, dtype=F64), 0.7 * torch.randn(50, 4, dtype=F64) + shift
    expected = prdc.compute_prdc(real.numpy(), generated.numpy(), nearest_k=k)
    assert manifold_scores(real, generated, k)._asdict().keys() == expected.keys()
    for name, values in manifold_scores(real, generated, k)._asdict().items():
        assert values.mean().item() == pytest.approx(expected[name]), name


def test_manifold_scores_of_samples_on_a_line():
    """The balls around 0, 1 and 5 reach 1, 1 and 4 far; those around 0.5, 3 and 20 reach 2.5, 2.5 and 17."""
    real, generated = torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([[0.5], [3.0], [20.0]])
    found = manifold_scores(real, generated, k=1)
    assert found.precision.tolist() == [1, 1, 0]
    assert found.recall.tolist() == [1, 1, 1]
    assert found.density.tolist() == [2, 1, 0]
    assert found.coverage.tolist() == [1, 1, 1]
    assert manifold_scores(real, generated[2:].repeat(2, 1), k=1).recall.tolist() == [0, 0, 0]


def test_manifold_scores_do_not_depend_on_the_chunks(monkeypatch):
    real, generated = torch.randn(25, 3), torch.randn(32, 3)
    whole = manifold_scores(real, generated)
    monkeypatch.setattr("guided_diffusion.evaluation.metrics.features.CHUNK", 10)
    for one, other in zip(whole, manifold_scores(real, generated), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("few", "lacking"), [("real", {"precision", "density", "coverage"}), ("generated", {"recall"})]
)
def test_what_needs_balls_of_too_few_samples_is_nan(few, lacking):
    sets = {"real": torch.randn(20, 3), "generated": torch.randn(20, 3)}
    sets[few] = sets[few][:5]
    found = manifold_scores(**sets, k=5)._asdict()
    assert {name for name, values in found.items() if values.isnan().all()} == lacking
    assert {name for name, values in found.items() if values.isnan().any()} == lacking


def test_diversity_is_the_mean_distance_of_two_samples_of_a_class():
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [7.0, 7.0], [1.0, 0.0], [1.0, 2.0]])
    diversity = within_class_diversity(features, torch.tensor([0, 0, 0, 1, 2, 2]), 4)
    torch.testing.assert_close(
        diversity, torch.tensor([10 / 3, torch.nan, 2, torch.nan], dtype=F64), equal_nan=True, rtol=1e-6, atol=1e-6
    )


def test_a_sample_that_was_drawn_twice_is_no_pair_with_itself():
    features = torch.tensor([[0.0], [1.0], [4.0]])
    weights = torch.tensor([[1.0, 1.0, 1.0], [2.0, 1.0, 0.0], [1.0, 0.0, 2.0], [3.0, 0.0, 0.0]])
    expected = torch.tensor([8 / 3, 1, 4, torch.nan], dtype=F64)
    torch.testing.assert_close(pair_mean(features, weights), expected, equal_nan=True, rtol=1e-6, atol=1e-6)


def test_diversity_does_not_depend_on_the_chunks(monkeypatch):
    features, weights = torch.randn(25, 3), torch.randint(3, (4, 25)).float()
    whole = pair_mean(features, weights)
    monkeypatch.setattr("guided_diffusion.evaluation.metrics.features.CHUNK", 10)
    torch.testing.assert_close(pair_mean(features, weights), whole)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_distance_to_the_nearest_is_the_root_mean_square_of_the_pixels(channels):
    reference = torch.rand(6, channels, 4, 4)
    images = torch.stack([reference[3] + 0.01, reference[0] - 0.02])
    torch.testing.assert_close(nearest_distances(images, reference), torch.tensor([0.01, 0.02]))


def test_a_copy_has_distance_zero():
    reference = torch.randn(300, 3, 8, 8)
    assert nearest_distances(reference[[7, 299]], reference).tolist() == [0, 0]


def test_the_nearest_does_not_depend_on_the_chunks(monkeypatch):
    images, reference = torch.randn(25, 1, 4, 4), torch.randn(40, 1, 4, 4)
    whole = nearest_distances(images, reference)
    torch.testing.assert_close(whole, torch.cdist(images.flatten(1), reference.flatten(1)).amin(1) / 4)
    monkeypatch.setattr("guided_diffusion.evaluation.metrics.features.CHUNK", 12)
    assert torch.equal(nearest_distances(images, reference), whole)
