"""The same numbers as diffusers, whose timestep k - 1 is our t = k/T."""

from functools import partial

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

from guided_diffusion.denoisers import Prediction
from guided_diffusion.samplers import ddim, ddpm, dpmpp_2m, sde_dpmpp_2m, uniform_times
from guided_diffusion.schedules import LinearBeta, expand_as, perturb

T = 1000
schedule = LinearBeta(T)
table = {"num_train_timesteps": T, "beta_schedule": "linear", "timestep_spacing": "trailing"}


def network(x_t, t):
    """The noise as some network sees it: that of N(0, 1/4) and a ripple."""
    alpha, sigma = (expand_as(value, x_t) for value in schedule(t))
    return sigma * x_t / (alpha**2 / 4 + sigma**2) + 0.3 * alpha * torch.sin(3 * x_t)


def denoise(x_t, t, y):
    eps = network(x_t, t)
    alpha, sigma = (expand_as(value, x_t) for value in schedule(t))
    return Prediction((x_t - sigma * eps) / alpha, eps)


def normal(seed):
    generator = torch.Generator().manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=generator, dtype=torch.float64)


def ours(method, steps):
    return [step.x for step in method(denoise, schedule, start(), uniform_times(schedule, steps), draw=normal(1))]


def theirs(scheduler, steps, draw=None, **settings):
    """Every sample on the way of a diffusers scheduler, with its table in double precision, and the noise of draw."""
    scheduler.alphas_cumprod = torch.cumprod(1 - torch.linspace(1e-4, 0.02, T, dtype=torch.float64), 0)
    scheduler.set_timesteps(steps)
    x, samples = start(), []
    for k in scheduler.timesteps:
        noise = {"variance_noise": draw(x.shape)} if draw else {}
        x = scheduler.step(network(x, (k + 1).double().expand(len(x)) / T), k, x, **noise, **settings).prev_sample
        samples.append(x)
    return samples


def start():
    return torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def assert_same(ours, theirs, atol=1e-9):
    for first, second in zip(ours, theirs, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=atol)


def test_the_noise_schedule_equals_that_of_diffusers():
    alpha, sigma = schedule(torch.arange(1, T + 1) / T)
    scheduler = DDPMScheduler(**table)
    torch.testing.assert_close(alpha**2, scheduler.alphas_cumprod, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(sigma**2, 1 - scheduler.alphas_cumprod, rtol=1e-5, atol=1e-6)


def test_noisy_images_equal_those_of_diffusers():
    x0, eps, k = start(), torch.randn(4, 3, 4, 4, dtype=torch.float64), torch.tensor([0, 250, 500, 999])
    expected = DDPMScheduler(**table).add_noise(x0, eps, k)
    torch.testing.assert_close(perturb(x0, eps, (k + 1) / T, schedule), expected, rtol=0, atol=1e-5)


def test_the_v_target_equals_that_of_diffusers():
    x0, eps, k = start(), torch.randn(4, 3, 4, 4, dtype=torch.float64), torch.tensor([0, 250, 500, 999])
    alpha, sigma = (expand_as(value, x0) for value in schedule((k + 1) / T))
    expected = DDPMScheduler(**table).get_velocity(x0, eps, k)
    torch.testing.assert_close(alpha * eps - sigma * x0, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("steps", [1, 10, 50, pytest.param(T, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("variance", "name"), [(0.0, "fixed_small"), (1.0, "fixed_large")])
def test_ancestral_steps_equal_those_of_diffusers(steps, variance, name):
    scheduler = DDPMScheduler(**table, variance_type=name, clip_sample=False)
    expected = theirs(scheduler, steps, generator=torch.Generator().manual_seed(1))
    # On a sub-grid their last step adds the large variance to the image itself; nobody wants that.
    compared = steps if name == "fixed_small" or steps == T else steps - 1
    assert_same(ours(partial(ddpm, variance=variance), steps)[:compared], expected[:compared])


@pytest.mark.parametrize("steps", [1, 10, 50, pytest.param(250, marks=pytest.mark.slow)])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_steps_equal_those_of_diffusers(steps, eta):
    scheduler = DDIMScheduler(**table, clip_sample=False, set_alpha_to_one=True)
    expected = theirs(scheduler, steps, eta=eta, generator=torch.Generator().manual_seed(1))
    assert_same(ours(partial(ddim, eta=eta), steps), expected)


@pytest.mark.filterwarnings("ignore:__array__")
@pytest.mark.parametrize("steps", [2, 10, 50, pytest.param(200, marks=pytest.mark.slow)])
def test_dpm_solver_steps_equal_those_of_diffusers(steps):
    scheduler = DPMSolverMultistepScheduler(
        **table, algorithm_type="dpmsolver++", solver_order=2, solver_type="midpoint", final_sigmas_type="zero"
    )
    assert_same(ours(dpmpp_2m, steps), theirs(scheduler, steps), atol=1e-5)


def stochastic():
    return DPMSolverMultistepScheduler(
        **table, algorithm_type="sde-dpmsolver++", solver_order=2, solver_type="midpoint", final_sigmas_type="zero"
    )


@pytest.mark.filterwarnings("ignore:__array__")
@pytest.mark.parametrize("steps", [2, 10, 50, pytest.param(200, marks=pytest.mark.slow)])
def test_stochastic_dpm_solver_steps_equal_those_of_diffusers(steps):
    assert_same(ours(sde_dpmpp_2m, steps), theirs(stochastic(), steps, draw=normal(1)), atol=1e-5)


@pytest.mark.filterwarnings("ignore:__array__")
def test_stochastic_dpm_solver_updates_equal_those_of_diffusers_in_double_precision():
    """Their ``step`` rounds samples, noise and noise levels to float32; the updates that it calls do not."""
    steps, scheduler, draw, x = 20, stochastic(), normal(1), start()
    scheduler.set_timesteps(steps)
    alpha, sigma = schedule(uniform_times(schedule, steps))
    scheduler.sigmas = sigma / alpha
    estimates, samples = [], []
    for scheduler._step_index, t in enumerate(uniform_times(schedule, steps)[:-1]):
        estimates.append(denoise(x, t.expand(len(x)), None).x0)
        if scheduler.step_index in (0, steps - 1):
            x = scheduler.dpm_solver_first_order_update(estimates[-1], sample=x, noise=draw(x.shape))
        else:
            x = scheduler.multistep_dpm_solver_second_order_update(estimates, sample=x, noise=draw(x.shape))
        samples.append(x)
    assert_same(ours(sde_dpmpp_2m, steps), samples, atol=1e-12)
