import pytest
import torch

from guided_diffusion.evaluation.metrics.bootstrap import (
    bootstrap,
    bootstrap_mean,
    percentile_interval,
    resampled_rows,
    row_counts,
)


def test_the_value_is_the_statistic_of_all_rows():
    seen = []
    interval = bootstrap(lambda rows: seen.append(rows.tolist()) or rows.sum().item(), 5, seed=0)
    assert interval.value == 10
    assert seen[0] == [0, 1, 2, 3, 4]


def test_rows_are_drawn_with_repetition_as_many_as_there_are():
    seen = []
    bootstrap(lambda rows: seen.append(rows) or 0.0, 50, seed=0, resamples=20)
    assert [len(rows) for rows in seen] == [50] * 21
    distinct = torch.tensor([len(rows.unique()) for rows in seen[1:]]).float().mean() / 50
    assert distinct == pytest.approx(1 - 1 / torch.e, abs=0.03)
    assert (torch.stack(seen).amin(), torch.stack(seen).amax()) == (0, 49)


def test_the_interval_of_a_constant_has_no_width():
    assert bootstrap_mean(torch.full((9,), 0.25), seed=0) == (0.25, 0.25, 0.25)
    assert bootstrap(lambda rows: 3.0, 9, seed=0) == (3, 3, 3)


def test_the_interval_of_a_mean_is_two_standard_errors_wide_on_each_side():
    values = torch.randn(400)
    interval = bootstrap_mean(values, seed=0, resamples=4000)
    error = values.std().item() / 20
    assert interval.value == pytest.approx(values.mean().item(), abs=1e-6)
    assert interval.low == pytest.approx(interval.value - 1.96 * error, abs=0.15 * error)
    assert interval.high == pytest.approx(interval.value + 1.96 * error, abs=0.15 * error)


def test_the_interval_contains_the_true_mean_at_the_rate_of_its_level():
    intervals = [bootstrap_mean(torch.rand(50), seed=seed, level=0.8) for seed in range(300)]
    rate = sum(interval.low <= 0.5 <= interval.high for interval in intervals) / 300
    assert rate == pytest.approx(0.8, abs=0.07)  # three standard errors


def test_bootstrap_mean_equals_bootstrap_of_the_mean():
    values = torch.randn(30, dtype=torch.float64)
    by_rows = bootstrap(lambda rows: values[rows].mean().item(), 30, seed=3, resamples=50, level=0.5)
    assert bootstrap_mean(values, seed=3, resamples=50, level=0.5) == pytest.approx(by_rows)


def test_centring_moves_the_interval_to_the_value_and_keeps_its_width():
    """The number of distinct rows is biased: every resample has fewer of them than there are rows."""

    def distinct(rows):
        return float(len(rows.unique()))

    plain, centred = (bootstrap(distinct, 40, seed=0, centred=centred) for centred in (False, True))
    assert plain.high < plain.value == centred.value == 40
    assert centred.high - centred.low == pytest.approx(plain.high - plain.low)
    assert centred.low < 40 < centred.high


def test_the_interval_depends_on_its_seed_and_leaves_the_global_random_state_alone():
    values = torch.randn(30)
    before = torch.random.get_rng_state()
    first = bootstrap_mean(values, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.rand(7)
    assert bootstrap_mean(values, seed=1) == first
    assert bootstrap_mean(values, seed=2) != first
    assert torch.equal(resampled_rows(9, 4, 3), resampled_rows(9, 4, 3))


def test_the_bounds_are_quantiles_of_the_resampled_values():
    assert percentile_interval(7.0, torch.arange(1.0, 100), level=0.9) == pytest.approx((7, 5, 95))


def test_an_interval_of_few_resampled_values_holds_its_level():
    """The share of a law between the ends of the interval of 50 draws from it is 95 % on average."""
    draws = torch.rand(2000, 50, generator=torch.Generator().manual_seed(0))
    shares = [high - low for _, low, high in (percentile_interval(0.5, one) for one in draws)]
    assert torch.tensor(shares).mean() == pytest.approx(0.95, abs=0.003)


def test_resampled_values_that_are_nan_are_ignored():
    resampled = torch.arange(101.0)
    resampled[[0, 100]] = torch.nan
    assert percentile_interval(7.0, resampled, level=1.0) == (7, 1, 99)


def test_the_interval_of_nan_is_nan():
    assert torch.tensor(bootstrap_mean(torch.full((4,), torch.nan), seed=0)).isnan().all()


def test_numbers_are_counted_row_by_row():
    assert row_counts(torch.tensor([[0, 2, 2], [1, 1, 1]]), 3).tolist() == [[1, 0, 2], [0, 3, 0]]
