"""What SDE-DPM-Solver++(2M) promises: the law of its samples, its order, and what it is without its second order."""

import math
from functools import partial

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.samplers import ddim, ddpm, log_snr_times, sde_dpmpp_2m, uniform_times

F64 = torch.float64
MEAN = torch.tensor([0.5, -1.0], dtype=F64)
COVARIANCE = torch.tensor([[0.5, 0.2], [0.2, 0.25]], dtype=F64)
PURE_NOISE = (torch.zeros(2, dtype=F64), torch.eye(2, dtype=F64))


@pytest.fixture
def oracle(schedule):
    return GaussianMixture.gaussian(schedule, MEAN, COVARIANCE)


def equal_steps(schedule, steps, start=0.9, end=0.1):
    """Times in equal steps of log-SNR between two others."""
    first, last = schedule.log_snr(torch.tensor([start, end], dtype=F64)).tolist()
    return schedule.time(torch.linspace(first, last, steps + 1, dtype=F64))


def at(schedule, t):
    """Mean and covariance of the Gaussian at time t."""
    alpha, sigma = schedule(t)
    return alpha * MEAN, alpha**2 * COVARIANCE + sigma**2 * torch.eye(2, dtype=F64)


# The law of its samples


@pytest.mark.one_schedule
@pytest.mark.parametrize("times", [uniform_times, log_snr_times])
def test_a_gaussian_is_recovered_from_noise(times, oracle, schedule, law):
    errors = []
    for steps in (50, 100):
        mean, covariance = law(sde_dpmpp_2m, oracle, schedule, times(schedule, steps), PURE_NOISE)
        torch.testing.assert_close(mean, MEAN, rtol=0, atol=1e-5)  # x at t = 1 is not quite pure noise
        errors.append((covariance - COVARIANCE).abs().max())
    assert errors[1] < min(0.011, errors[0] / 2.2)


@pytest.mark.parametrize("steps", [10, 25, 50])
def test_its_covariance_is_closer_than_that_of_ancestral_sampling(steps, oracle, schedule, law):
    errors = [
        (law(method, oracle, schedule, uniform_times(schedule, steps), PURE_NOISE)[1] - COVARIANCE).abs().max()
        for method in (sde_dpmpp_2m, ddpm)
    ]
    assert errors[0] < errors[1] / 2


@pytest.mark.one_schedule
@pytest.mark.parametrize(("method", "expected"), [(ddpm, 1), (sde_dpmpp_2m, 2)])
@pytest.mark.parametrize("from_a_point", [False, True])
def test_the_mean_is_exact_and_the_covariance_has_its_weak_order(method, expected, from_a_point, oracle, schedule, law):
    """The exact law is that of x_s, or that of x_s given x_t, the transition of the reverse SDE.

    The mean is exact for any steps, as the estimate of x0 is linear here and its expected change in a step is zero.
    """
    x, errors = torch.tensor([2.0, 0.5], dtype=F64), []
    for steps in (50, 100):
        times = equal_steps(schedule, steps)
        (before, covariance_before), (exact_mean, exact_covariance) = at(schedule, times[0]), at(schedule, times[-1])
        start = before, covariance_before
        if from_a_point:
            start = x, torch.zeros(2, 2, dtype=F64)
            gain = schedule(times[0])[0] / schedule(times[-1])[0] * exact_covariance @ covariance_before.inverse()
            exact_mean = exact_mean + gain @ (x - before)
            exact_covariance = exact_covariance - gain @ covariance_before @ gain.T
        mean, covariance = law(method, oracle, schedule, times, start)
        torch.testing.assert_close(mean, exact_mean, rtol=0, atol=1e-12)
        errors.append((covariance - exact_covariance).abs().max())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(expected, abs=0.15)


# One step


def test_a_step_of_first_order_is_that_of_ddpm_with_the_small_variance(mixture, schedule, normal):
    """The first step and the step to t = 0, from any time to any other."""
    x = torch.randn(5, 2, dtype=F64)
    for pair in ([1.0, 0.7], [0.7, 0.65], [0.3, 0.01], [0.2, 0.0]):
        times = torch.tensor(pair, dtype=F64)
        (found,) = sde_dpmpp_2m(mixture, schedule, x, times, None, normal(1))
        for same in (ddpm, partial(ddim, eta=1.0)):
            (expected,) = same(mixture, schedule, x, times, None, normal(1))
            torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-12)
        (large,) = ddpm(mixture, schedule, x, times, None, normal(1), variance=1.0)
        assert (large.x - found.x).abs().max() > 1e-4 or pair[1] == 0


@pytest.mark.parametrize("times", [uniform_times, log_snr_times])
def test_if_the_estimate_never_changes_every_step_is_of_first_order(times, schedule, normal):
    def still(x, t, y):
        return Prediction(torch.full_like(x, 0.3), x)

    x = torch.randn(4, 2, dtype=F64)
    both = (method(still, schedule, x, times(schedule, 8), None, normal(1)) for method in (sde_dpmpp_2m, ddpm))
    for found, expected in zip(*both, strict=True):
        torch.testing.assert_close(found.x, expected.x, rtol=0, atol=1e-12)


def test_a_second_step_is_the_formula_by_hand(mixture, schedule):
    times = torch.tensor([0.8, 0.6, 0.5], dtype=F64)
    x, *z = torch.randn(3, 3, 2, dtype=F64)
    draws = iter(z)
    first, second = sde_dpmpp_2m(mixture, schedule, x, times, None, lambda shape: next(draws))
    (_, sigma), (alpha_next, sigma_next) = schedule(times[1]), schedule(times[2])
    h_last, h = schedule.log_snr(times).diff() / 2
    r = h_last / h
    estimate = (1 + 1 / (2 * r)) * second.x0 - 1 / (2 * r) * first.x0
    kept, new = (sigma_next / sigma) * math.exp(-h), 1 - math.exp(-2 * h)
    expected = kept * first.x + alpha_next * new * estimate + sigma_next * math.sqrt(new) * z[1]
    torch.testing.assert_close(second.x, expected, rtol=0, atol=1e-12)
