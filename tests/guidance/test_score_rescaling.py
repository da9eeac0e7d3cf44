import math

import pytest
import torch

from guided_diffusion.denoisers import Denoiser
from guided_diffusion.evaluation.cost import evaluations_per_sample, labels_needed
from guided_diffusion.guidance import ScoreRescaling
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, heun, uniform_times
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
MEAN, S = torch.tensor([0.6, -0.8], dtype=F64), 0.5
Y = torch.zeros(9, dtype=torch.long)


def gaussian(schedule, variance):
    return GaussianMixture.gaussian(schedule, MEAN, variance * torch.eye(2, dtype=F64))


@pytest.mark.parametrize("k", [0.3, 2.0, 25.0])
def test_the_denoiser_of_an_isotropic_gaussian_becomes_that_of_variance_divided_by_k(schedule, k):
    x_t, t = torch.randn(9, 2, dtype=F64), torch.linspace(0.05, 1, 9, dtype=F64)
    guided = ScoreRescaling(k, S)(gaussian(schedule, S**2), schedule)(x_t, t, Y)
    for found, expected in zip(guided, gaussian(schedule, S**2 / k)(x_t, t, Y), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("k", [0.5, 2.0])
def test_samples_of_the_flow_have_the_variance_divided_by_k_to_second_order_in_the_step(k):
    """The flow is ``x -> m + (x_T - alpha_T m) (s / sqrt(k)) / sqrt(alpha_T^2 s^2 / k + sigma_T^2)``."""
    schedule, noise = Cosine(), torch.randn(9, 2, dtype=F64)
    denoise, errors = ScoreRescaling(k, S)(gaussian(schedule, S**2), schedule), []
    for steps in (8, 16):
        times = uniform_times(schedule, steps)
        *_, last = heun(denoise, schedule, noise, times, Y)
        alpha, sigma = schedule(times[0])
        end = MEAN + (noise - alpha * MEAN) * S / (alpha**2 * S**2 + k * sigma**2).sqrt()
        errors.append((last.x - end).abs().max().item())
    assert errors[-1] < 0.03
    assert errors[0] > 3 * errors[1]


def test_it_is_the_rule_of_the_paper_on_a_mixture(mixture, noisy):
    x_t, t, y = noisy
    k = torch.linspace(0.1, 5, 9, dtype=F64)
    guided = ScoreRescaling(k, 0.3)(mixture, mixture.schedule)(x_t, t, y)
    alpha, sigma = mixture.schedule(t)
    rho = (sigma**2 + alpha**2 * 0.09) / (sigma**2 + alpha**2 * 0.09 / k)
    torch.testing.assert_close(guided.eps, rho[:, None] * mixture(x_t, t, y).eps, rtol=0, atol=1e-12)
    torch.testing.assert_close(perturb(*guided, t, mixture.schedule), x_t, rtol=0, atol=1e-12)


@torch.no_grad()
def test_at_one_it_is_the_conditional_model_bit_for_bit(network):
    denoiser, x_t, t = Denoiser(network, Cosine()), torch.randn(3, 1, 8, 8), torch.linspace(0.1, 1, 3)
    plain = denoiser(x_t, t, Y[:3])
    for scale in (1.0, torch.tensor([1.0, 1.0, 2.0])):
        guided = ScoreRescaling(scale)(denoiser, Cosine())(x_t, t, Y[:3])
        for one, other in zip(guided, plain, strict=True):
            assert torch.equal(one[:2], other[:2])


def test_at_zero_the_noise_is_zero(mixture, noisy):
    x_t, t, y = noisy
    guided = ScoreRescaling(0.0)(mixture, mixture.schedule)(x_t, t, y)
    torch.testing.assert_close(guided.eps, torch.zeros_like(x_t), rtol=0, atol=1e-12)
    assert guided.x0.isfinite().all()


@pytest.mark.parametrize("k", [0.0, 1.0, 3.0])
def test_it_evaluates_the_conditional_model_once(k):
    recipe = Recipe(ScoreRescaling(k), sampler=Sampler(steps=5))
    assert evaluations_per_sample(recipe, Cosine()) == 5
    assert labels_needed(recipe, Cosine()) == {True}


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"scale": -1.0}, "scale must be at least 0, got -1.0"),
        ({"scale": torch.tensor([1.0, -0.5])}, "scale must be at least 0"),
        ({"data_std": 0.0}, "data_std must be positive, got 0.0"),
        ({"data_std": math.inf}, "data_std must be positive, got inf"),
    ],
)
def test_an_invalid_setting_raises(setting, message):
    with pytest.raises(ValueError, match=message):
        ScoreRescaling(**setting)
