import math

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance import ClassifierFree, PowerLaw
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.schedules import expand_as

F64 = torch.float64


def two_gaussians(schedule, distance, variance):
    """Return a denoiser of one Gaussian with a label and of another, of the same covariance, without one."""
    first, second = (
        GaussianMixture.gaussian(schedule, torch.tensor(mean, dtype=F64), variance * torch.eye(2, dtype=F64))
        for mean in ([distance, 0.0], [0.0, 0.0])
    )

    def denoise(x_t, t, y):
        with_label, without = first(x_t, t, None), second(x_t, t, None)
        return Prediction(
            *(a.where((y >= 0)[:, None], b) for a, b in zip(with_label, without, strict=True)),
        )

    return denoise


@pytest.mark.parametrize("exponent", [-0.5, 0.0, 0.9, 2.0])
def test_the_scale_of_two_gaussians_is_that_worked_out_by_hand(exponent, schedule):
    """The scores differ by ``alpha (m - m') / S`` with ``S = alpha^2 v + sigma^2``, at every x."""
    distance, variance, w = 1.5, 0.3, 2.5
    x_t, t, y = torch.randn(5, 2, dtype=F64), torch.linspace(0.1, 1, 5, dtype=F64), torch.zeros(5, dtype=torch.long)
    denoise = two_gaussians(schedule, distance, variance)
    alpha, sigma = schedule(t)
    s = alpha**2 * variance + sigma**2
    found, c = PowerLaw(w, exponent)(denoise, schedule)(x_t, t, y), denoise(x_t, t, y)
    extra = (w - 1) * (alpha * distance / s) ** exponent * sigma**2 * distance / s
    expected = c.x0 + torch.stack([extra, torch.zeros_like(extra)], 1)
    torch.testing.assert_close(found.x0, expected, rtol=0, atol=1e-12)
    rebuilt = expand_as(alpha, x_t) * found.x0 + expand_as(sigma, x_t) * found.eps
    torch.testing.assert_close(rebuilt, x_t, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.7, torch.linspace(-1, 3, 9)])
def test_an_exponent_of_zero_is_classifier_free_guidance(scale, mixture, noisy):
    one, other = (each(mixture, mixture.schedule)(*noisy) for each in (PowerLaw(scale, 0.0), ClassifierFree(scale)))
    assert torch.equal(one.x0, other.x0)
    assert torch.equal(one.eps, other.eps)


def test_a_scale_of_one_is_the_conditional_model_at_one_evaluation(mixture, noisy, counted):
    model = counted(mixture)
    assert torch.equal(PowerLaw(1.0)(model, mixture.schedule)(*noisy).x0, mixture(*noisy).x0)
    assert model.calls == [noisy[2].tolist()]


@pytest.mark.parametrize("exponent", [-0.9, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_equal_predictions_stay_as_they_are(exponent, dtype, schedule):
    def same(x_t, t, y):
        return Prediction(x_t * 0.5, x_t * 0.25)

    x_t, t, y = torch.randn(3, 1, 4, 6, dtype=dtype), torch.full((3,), 0.4), torch.arange(3)
    guided = PowerLaw(3.0, exponent)(same, schedule)(x_t, t, y)
    assert guided.x0.dtype == dtype
    assert torch.equal(guided.x0, x_t * 0.5)


@pytest.mark.parametrize("exponent", [-1.0, math.inf, math.nan])
def test_an_invalid_exponent_raises(exponent):
    with pytest.raises(ValueError, match="exponent must be above -1 and finite"):
        PowerLaw(2.0, exponent)
