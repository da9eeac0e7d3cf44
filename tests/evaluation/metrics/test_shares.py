import math

import pytest
import torch
from scipy.stats import binomtest

from guided_diffusion.evaluation.metrics.shares import share_interval, wilson


@pytest.mark.parametrize(("successes", "trials"), [(500, 500), (0, 500), (1, 1), (3, 10), (497, 1000), (9999, 10_000)])
@pytest.mark.parametrize("level", [0.95, 0.8])
def test_the_interval_is_that_of_scipy(successes, trials, level):
    expected = binomtest(successes, trials).proportion_ci(level, method="wilson")
    found = wilson(successes / trials, trials, level)
    assert found == pytest.approx((successes / trials, expected.low, expected.high), abs=1e-12)
    assert found.low <= found.value <= found.high


def test_500_of_500_may_be_as_few_as_992_of_1000():
    assert wilson(1.0, 500) == pytest.approx((1, 0.99238, 1), abs=1e-5)


def test_without_a_trial_nothing_is_known():
    assert all(map(math.isnan, wilson(1.0, 0)))
    assert all(map(math.isnan, share_interval(torch.tensor([]))))
    assert all(map(math.isnan, share_interval(torch.full((4,), torch.nan))))


def test_equal_weights_change_nothing_and_others_count_as_fewer_trials():
    successes = torch.tensor([True, False, True, True])
    assert share_interval(successes) == wilson(0.75, 4)
    assert share_interval(successes, torch.full((4,), 0.1)) == pytest.approx(wilson(0.75, 4))
    weighted = share_interval(successes, torch.tensor([3.0, 1.0, 1.0, 1.0]))
    assert weighted == pytest.approx(wilson(5 / 6, 36 / 12))
