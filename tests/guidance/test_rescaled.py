from dataclasses import replace

import pytest
import torch
from diffusers.guiders.guider_utils import rescale_noise_cfg

from guided_diffusion.denoisers import Denoiser, Prediction
from guided_diffusion.guidance import ClassifierFree, Rescaled
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.schedules import Cosine, expand_as, perturb

F64 = torch.float64


@pytest.fixture
def schedule():
    """One schedule is enough here."""
    return Cosine()


def velocity(prediction, t, schedule):
    alpha, sigma = (expand_as(value, prediction.x0) for value in schedule(t))
    return alpha * prediction.eps - sigma * prediction.x0


@pytest.fixture
def images(schedule):
    """The exact denoiser of two classes of images, and noisy images."""
    means, covariances = torch.randn(2, 36, dtype=F64), 0.3 * torch.eye(36, dtype=F64).expand(2, 36, 36)
    inputs = torch.randn(4, 3, 3, 4, dtype=F64), torch.linspace(0.1, 1, 4, dtype=F64), torch.tensor([0, 1, 0, 1])
    return GaussianMixture(schedule, means, covariances), inputs


@pytest.mark.parametrize("rescale", [0.7, 1.0])
@pytest.mark.parametrize("w", [-1.0, 4.0])
def test_v_is_that_of_diffusers(images, w, rescale):
    oracle, (x_t, t, y) = images
    guided = Rescaled(w, rescale)(oracle, oracle.schedule)(x_t, t, y)
    v_c, v_u = (velocity(oracle(x_t, t, labels), t, oracle.schedule) for labels in (y, None))
    expected = rescale_noise_cfg(v_u + w * (v_c - v_u), v_c, rescale)
    torch.testing.assert_close(velocity(guided, t, oracle.schedule), expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(perturb(*guided, t, oracle.schedule), x_t, rtol=0, atol=1e-12)


def test_at_one_v_has_the_standard_deviation_of_the_conditional_model(images):
    oracle, (x_t, t, y) = images
    guided, plain = Rescaled(5.0, 1.0)(oracle, oracle.schedule)(x_t, t, y), oracle(x_t, t, y)
    stds = [velocity(each, t, oracle.schedule).flatten(1).std(1) for each in (guided, plain)]
    torch.testing.assert_close(*stds, rtol=0, atol=1e-12)


@pytest.mark.parametrize("w", [3.0, torch.tensor([0.0, 1.0, 3.0])], ids=str)
@torch.no_grad()
def test_neutral_settings_are_classifier_free_guidance_bit_for_bit(network, w):
    denoiser, t, y = Denoiser(network, Cosine()), torch.linspace(0.1, 1, 3), torch.tensor([0, 1, 2])
    x_t = torch.randn(3, 1, 8, 8)
    free = ClassifierFree(w)(denoiser, Cosine())(x_t, t, y)
    neutral = replace(Rescaled(w), **Rescaled.as_classifier_free)(denoiser, Cosine())(x_t, t, y)
    assert torch.equal(neutral.x0, free.x0)
    assert torch.equal(neutral.eps, free.eps)
    assert torch.equal(Rescaled(1.0)(denoiser, Cosine())(x_t, t, y).x0, denoiser(x_t, t, y).x0)


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_a_constant_prediction_stays_as_it_is(value):
    """``c + (c - u)`` is constant: its standard deviation is 0, or of the size of rounding errors."""
    c = torch.linspace(0, 1, 12).view(1, 1, 3, 4)

    def denoise(x_t, t, y):
        x0 = torch.where((y >= 0)[:, None, None, None], c, 2 * c - value)
        return Prediction(x0, torch.zeros_like(x_t))

    inputs = torch.zeros(2, 1, 3, 4), torch.full((2,), 0.5), torch.tensor([0, 1])
    guided, free = (method(2.0)(denoise, Cosine())(*inputs).x0 for method in (Rescaled, ClassifierFree))
    assert torch.equal(guided, free)


def test_points_raise(mixture, noisy):
    with pytest.raises(ValueError, match=r"rescaled guidance is for images .* got samples of \(2,\)"):
        Rescaled(2.0)(mixture, mixture.schedule)(*noisy)


def test_an_invalid_setting_raises():
    with pytest.raises(ValueError, match=r"rescale must be in \[0, 1\], got 1.5"):
        Rescaled(2.0, 1.5)
