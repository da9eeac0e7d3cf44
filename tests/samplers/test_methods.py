import math
from functools import partial

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance import ClassifierFree
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.samplers import (
    ddim,
    ddpm,
    dpmpp_2m,
    heun,
    karras_times,
    log_snr_times,
    sde_dpmpp_2m,
    shifted_times,
    uniform_times,
)

F64 = torch.float64
METHODS = {
    "ddpm": ddpm,
    "ddpm large": partial(ddpm, variance=1.0),
    "ddim": ddim,
    "ddim eta=1": partial(ddim, eta=1.0),
    "heun": heun,
    "dpmpp_2m": dpmpp_2m,
    "sde_dpmpp_2m": sde_dpmpp_2m,
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
every_grid = pytest.mark.parametrize("times", [uniform_times, log_snr_times, karras_times, shifted_times])


def last(steps):
    *_, step = steps
    return step


def normal(generator):
    """Draws in float64 from a generator."""
    return lambda shape: torch.randn(shape, generator=generator, dtype=F64)


# What comes out of the samplers


@pytest.mark.one_schedule
@pytest.mark.parametrize(
    ("method", "steps"),
    [
        (ddpm, 200),
        (partial(ddpm, variance=1.0), 125),
        (ddim, 60),
        (partial(ddim, eta=1.0), 200),
        (heun, 20),
        (dpmpp_2m, 30),
        (sde_dpmpp_2m, 50),
    ],
    ids=METHODS,
)
def test_samples_of_a_gaussian_have_its_mean_and_covariance(method, steps, schedule, generator):
    mean = torch.tensor([0.5, -1.0], dtype=F64)
    covariance = torch.tensor([[0.5, 0.2], [0.2, 0.25]], dtype=F64)
    oracle, draw, count = GaussianMixture.gaussian(schedule, mean, covariance), normal(generator), 5000
    x = last(method(oracle, schedule, draw((count, 2)), uniform_times(schedule, steps), draw=draw)).x
    variances = covariance.diagonal()
    error_of_mean = (variances / count).sqrt()
    error_of_covariance = ((variances[:, None] * variances + covariance**2) / count).sqrt()
    assert ((x.mean(0) - mean).abs() < 5 * error_of_mean).all()
    assert ((x.T.cov() - covariance).abs() < 5 * error_of_covariance).all()


@pytest.mark.one_schedule
@pytest.mark.parametrize(("method", "order"), [(ddim, 1), (heun, 2), (dpmpp_2m, 2)])
@pytest.mark.parametrize("c", [0.5, 2.0])
def test_order_of_convergence_to_the_closed_form_flow(method, order, c, schedule):
    """Along the flow of N(mu, c^2 I) the offset from alpha mu is in proportion to sqrt(alpha^2 c^2 + sigma^2)."""
    mean, offset = torch.tensor([1.0, -2.0], dtype=F64), torch.randn(4, 2, dtype=F64)
    oracle = GaussianMixture.gaussian(schedule, mean, c**2 * torch.eye(2, dtype=F64))

    def flow(t):
        alpha, sigma = schedule(t)
        return alpha * mean + (alpha**2 * c**2 + sigma**2).sqrt() * offset

    start, end = schedule.log_snr(torch.tensor([0.9, 0.1], dtype=F64)).tolist()
    errors = []
    for steps in (50, 100):
        times = schedule.time(torch.linspace(start, end, steps + 1, dtype=F64))
        x = last(method(oracle, schedule, flow(times[0]), times)).x
        errors.append((x - flow(times[-1])).abs().max())
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


@pytest.mark.one_schedule
@pytest.mark.parametrize(("method", "atol"), [(ddim, 0.05), (heun, 0.005), (dpmpp_2m, 0.005)])
@pytest.mark.parametrize("times", [uniform_times, log_snr_times])
def test_sampling_from_noise_to_image_ends_at_the_closed_form_solution(method, atol, times, schedule):
    mean, noise = torch.tensor([1.0, -2.0], dtype=F64), torch.randn(4, 2, dtype=F64)
    oracle = GaussianMixture.gaussian(schedule, mean, 0.25 * torch.eye(2, dtype=F64))
    alpha, sigma = schedule(torch.ones((), dtype=F64))
    expected = mean + 0.5 * (noise - alpha * mean) / (alpha**2 * 0.25 + sigma**2).sqrt()
    x = last(method(oracle, schedule, noise, times(schedule, 100))).x
    torch.testing.assert_close(x, expected, rtol=0, atol=atol)


@pytest.mark.parametrize("times", [uniform_times, log_snr_times])
def test_ddim_with_eta_one_is_ddpm_with_the_small_variance(mixture, times):
    noise = torch.randn(20, 2, dtype=F64)
    both = [
        method(
            mixture, mixture.schedule, noise, times(mixture.schedule, 10), draw=normal(torch.Generator().manual_seed(1))
        )
        for method in (partial(ddim, eta=1.0), ddpm)
    ]
    for first, second in zip(*both, strict=True):
        torch.testing.assert_close(first.x, second.x, rtol=0, atol=1e-10)


def test_the_variance_of_ddpm_is_between_its_small_and_its_large_one(schedule):
    t, t_next = times = torch.tensor([0.8, 0.6], dtype=F64)
    (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
    large = sigma**2 - (alpha / alpha_next) ** 2 * sigma_next**2
    small = large * sigma_next**2 / sigma**2

    def still(x, t, y):
        return Prediction(torch.zeros_like(x), x)

    for variance, expected in ((0.0, small), (1.0, large), (0.5, (small * large).sqrt())):
        step = last(
            ddpm(still, schedule, torch.zeros(1, 2, dtype=F64), times, draw=lambda s: torch.ones(s), variance=variance)
        )
        torch.testing.assert_close(step.x, expected.sqrt().expand(1, 2), rtol=1e-12, atol=0)


@every_method
def test_one_step_is_the_estimate_at_pure_noise(method, mixture):
    noise = torch.randn(5, 2, dtype=F64)
    step = last(method(mixture, mixture.schedule, noise, uniform_times(mixture.schedule, 1)))
    torch.testing.assert_close(step.x, mixture(noise, torch.ones(5, dtype=F64), None).x0, rtol=0, atol=1e-12)


# From samples to noise: rising times

deterministic = pytest.mark.parametrize(("method", "order"), [(ddim, 1), (heun, 2), (dpmpp_2m, 2)])


@pytest.mark.one_schedule
@deterministic
def test_a_deterministic_sampler_finds_the_noise_of_a_gaussian_along_rising_times(method, order, schedule):
    mean, x = torch.tensor([1.0, -2.0], dtype=F64), torch.randn(4, 2, dtype=F64)
    oracle = GaussianMixture.gaussian(schedule, mean, 0.25 * torch.eye(2, dtype=F64))
    alpha, sigma = schedule(torch.ones((), dtype=F64))
    expected = alpha * mean + (x - mean) / 0.5 * (alpha**2 * 0.25 + sigma**2).sqrt()
    errors = []
    for steps in (50, 100):
        noise = last(method(oracle, schedule, x, log_snr_times(schedule, steps).flip(0))).x
        errors.append((noise - expected).abs().max())
    assert math.log2(errors[0] / errors[1]) > order - 0.2
    assert errors[1] < (0.2 if order == 1 else 0.02)


@pytest.mark.one_schedule
@deterministic
def test_inversion_then_sampling_comes_back_to_the_samples(method, order, mixture, generator):
    y = torch.tensor([0, 1, 2, 2])
    x, errors = mixture.sample(y, generator), []
    for steps in (50, 100):
        times = uniform_times(mixture.schedule, steps)
        noise = last(method(mixture, mixture.schedule, x, times.flip(0), y)).x
        errors.append((last(method(mixture, mixture.schedule, noise, times, y)).x - x).abs().max())
    assert errors[1] < errors[0] / 2 ** (order - 0.4)


def test_a_rising_ddim_step_is_the_formula_by_hand(mixture):
    t, t_next = times = torch.tensor([0.3, 0.5], dtype=F64)
    x, (alpha_next, sigma_next) = torch.randn(3, 2, dtype=F64), mixture.schedule(t_next)
    x0, eps = mixture(x, t.expand(3), None)
    step = last(ddim(mixture, mixture.schedule, x, times))
    torch.testing.assert_close(step.x, alpha_next * x0 + sigma_next * eps, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", [ddim, heun, dpmpp_2m])
def test_rising_times_may_begin_at_zero_where_a_denoiser_is_not_defined(method, mixture):
    def denoise(x, t, y):
        assert (t > 0).all()
        return mixture(x, t, y)

    x, grid = torch.randn(3, 2, dtype=F64), uniform_times(mixture.schedule, 5).flip(0)
    assert all(step.x.isfinite().all() for step in method(denoise, mixture.schedule, x, grid))


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (ddpm, "ddpm"),
        (partial(ddpm, variance=1.0), "ddpm"),
        (partial(ddim, eta=0.5), "eta=0.5"),
        (sde_dpmpp_2m, "sde_dpmpp_2m"),
    ],
)
def test_a_sampler_that_adds_noise_refuses_rising_times(method, name, mixture):
    steps = method(mixture, mixture.schedule, torch.zeros(1, 2), torch.tensor([0.0, 0.5, 1.0]))
    with pytest.raises(ValueError, match=f"{name} adds noise .* use ddim with eta=0, heun or dpmpp_2m"):
        next(steps)


# What a sampler is


@pytest.mark.one_schedule
@every_method
@every_grid
def test_a_sampler_yields_every_step_and_ends_with_its_estimate(method, times, mixture):
    grid = times(mixture.schedule, 7)
    steps = list(method(mixture, mixture.schedule, torch.randn(5, 2, dtype=F64), grid))
    assert torch.equal(torch.stack([step.t for step in steps]), grid[1:])
    torch.testing.assert_close(steps[-1].x, steps[-1].x0, rtol=0, atol=1e-12)
    assert all(step.x.isfinite().all() for step in steps)


@pytest.mark.parametrize(("name", "evaluations"), [*((name, 10) for name in METHODS if name != "heun"), ("heun", 19)])
def test_each_method_has_its_number_of_network_evaluations(name, evaluations, mixture, counted):
    denoise, schedule = counted(mixture), mixture.schedule
    last(METHODS[name](denoise, schedule, torch.randn(5, 2, dtype=F64), uniform_times(schedule, 10)))
    assert len(denoise.calls) == evaluations


@every_method
def test_a_sampler_passes_labels_on_and_treats_guided_and_plain_denoisers_alike(method, mixture):
    y, noise, schedule = torch.tensor([0, 1, 2]), torch.randn(3, 2, dtype=F64), mixture.schedule
    draws = [normal(torch.Generator().manual_seed(2)) for _ in range(2)]
    plain, guided = (
        last(method(denoise, schedule, noise, uniform_times(schedule, 5), y, draw))
        for denoise, draw in zip((mixture, ClassifierFree(1.0)(mixture, schedule)), draws, strict=True)
    )
    assert torch.equal(plain.x, guided.x)
    assert not torch.equal(plain.x, last(method(mixture, schedule, noise, uniform_times(schedule, 5))).x)


@every_method
def test_a_sampler_keeps_the_precision_of_the_noise_and_leaves_it_as_it_was(method, mixture):
    noise = torch.randn(5, 2)
    before = noise.clone()
    assert last(method(mixture, mixture.schedule, noise, uniform_times(mixture.schedule, 5))).x.dtype == torch.float32
    assert torch.equal(noise, before)


@pytest.mark.parametrize("method", [ddim, heun, dpmpp_2m])
def test_a_deterministic_sampler_draws_nothing(method, mixture):
    def draw(shape):
        raise AssertionError("noise was drawn")

    noise, before = torch.randn(5, 2, dtype=F64), torch.random.get_rng_state()
    last(method(mixture, mixture.schedule, noise, uniform_times(mixture.schedule, 5), None, draw))
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize("method", [ddpm, partial(ddim, eta=0.5), sde_dpmpp_2m])
def test_a_stochastic_sampler_draws_once_a_step_but_the_last(method, mixture):
    shapes = []

    def draw(shape):
        shapes.append(tuple(shape))
        return torch.zeros(shape)

    last(
        method(mixture, mixture.schedule, torch.randn(5, 2, dtype=F64), uniform_times(mixture.schedule, 4), None, draw)
    )
    assert shapes == [(5, 2)] * 3


@pytest.mark.parametrize(("sampler", "setting"), [(ddpm, "variance"), (ddim, "eta")])
@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_a_share_of_noise_outside_0_to_1_raises(mixture, sampler, setting, value):
    times = uniform_times(mixture.schedule, 2)
    steps = sampler(mixture, mixture.schedule, torch.zeros(1, 2), times, **{setting: value})
    with pytest.raises(ValueError, match=rf"{setting} must be in \[0, 1\], got {value}"):
        next(steps)
