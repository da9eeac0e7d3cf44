import math
from dataclasses import replace

import pytest
import torch

from guided_diffusion.denoisers import Denoiser, Prediction
from guided_diffusion.guidance import ClassifierFree, FrequencyDecoupled
from guided_diffusion.guidance.frequency_decoupled import blur
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
SCHEDULE = Cosine()


def denoise_to(c, u):
    """Return a denoiser of images that are ``c`` with a label and ``u`` without."""

    def denoise(x_t, t, y):
        x0 = torch.where((y >= 0)[:, None, None, None], c, u).expand_as(x_t)
        return Prediction.from_x0(x0, x_t, t, SCHEDULE)

    return denoise


def guide(c, u, **settings):
    x_t, t = torch.randn(2, *c.shape, dtype=F64), torch.full((2,), 0.5, dtype=F64)
    guided = FrequencyDecoupled(**settings)(denoise_to(c, u), SCHEDULE)(x_t, t, torch.tensor([0, 1]))
    torch.testing.assert_close(perturb(*guided, t, SCHEDULE), x_t, rtol=0, atol=1e-12)
    return guided.x0[0]


@pytest.mark.parametrize("w", [3.0, torch.tensor([0.0, 1.0, 3.0])], ids=str)
@torch.no_grad()
def test_equal_weights_are_classifier_free_guidance_bit_for_bit(network, w):
    denoiser, t, y = Denoiser(network, SCHEDULE), torch.linspace(0.1, 1, 3), torch.tensor([0, 1, 2])
    x_t = torch.randn(3, 1, 8, 8)
    neutral = replace(FrequencyDecoupled(w), **FrequencyDecoupled.as_classifier_free)
    one, other = (guidance(denoiser, SCHEDULE)(x_t, t, y) for guidance in (neutral, ClassifierFree(w)))
    assert torch.equal(one.x0, other.x0)
    assert torch.equal(one.eps, other.eps)


def test_a_constant_difference_sees_the_low_weight_alone():
    u = torch.randn(3, 6, 9, dtype=F64)
    guided = guide(u + 0.5, u, scale=10.0)
    torch.testing.assert_close(guided, u + 0.5 * (1 + 0.4444 * 9), rtol=0, atol=1e-12)


def test_the_finest_checkerboard_sees_the_high_weight_alone():
    u = torch.randn(1, 10, 12, dtype=F64)
    q = (-1.0) ** (torch.arange(10)[:, None] + torch.arange(12)).to(F64)
    torch.testing.assert_close(guide(u + q, u, scale=3.0), u + 3 * q, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("rows", "columns"), [(1, 0), (2, 5), (7, 3)])
def test_the_blur_multiplies_each_cosine_by_its_closed_form(rows, columns):
    """``cos(pi k i / (n - 1))`` is symmetric about both borders, so a blur with reflected borders only scales it."""
    height, width, std = 9, 14, 0.8
    radius = math.ceil(3 * std)

    def wave(k, n):
        return torch.cos(math.pi * k * torch.arange(n, dtype=F64) / (n - 1))

    def response(k, n):
        steps = range(-radius, radius + 1)
        weights = [math.exp(-(i**2) / (2 * std**2)) for i in steps]
        return sum(g * math.cos(math.pi * k * i / (n - 1)) for g, i in zip(weights, steps, strict=True)) / sum(weights)

    image = (wave(rows, height)[:, None] * wave(columns, width)).expand(2, 3, -1, -1)
    expected = response(rows, height) * response(columns, width) * image
    torch.testing.assert_close(blur(image, std), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 3, 1, 5), (2, 1, 28, 20)])
def test_images_of_every_size_are_blurred(shape):
    images = torch.full(shape, 2.0)
    torch.testing.assert_close(blur(images, 1.5), images)


def test_points_raise(mixture, noisy):
    with pytest.raises(ValueError, match=r"frequency-decoupled guidance is for images .* got samples of \(2,\)"):
        FrequencyDecoupled(2.0)(mixture, mixture.schedule)(*noisy)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"low_scale_ratio": math.inf}, "low_scale_ratio must be finite, got inf"),
        ({"blur_std": 0.0}, "blur_std must be positive, got 0.0"),
    ],
)
def test_an_invalid_setting_raises(setting, message):
    with pytest.raises(ValueError, match=message):
        FrequencyDecoupled(**setting)
