import math
from dataclasses import FrozenInstanceError, replace

import pytest
import torch

from guided_diffusion.denoisers import UNLABELLED, Denoiser
from guided_diffusion.guidance import ClassifierFree
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
per_sample = torch.tensor([0.0, 0.5, 1.0, 2.0, 5.0, -1.0, 1.0, 0.0, 3.0], dtype=F64)
every_scale = pytest.mark.parametrize("scale", [0.0, 0.3, 0.5, 1.0, 2.0, 5.0, per_sample], ids=str)


def column(scale):
    return torch.as_tensor(scale, dtype=F64).expand(9)[:, None]


@pytest.fixture
def denoiser(network):
    """A real network: bit-exactness is claimed for those."""
    return Denoiser(network, Cosine())


@pytest.fixture
def images():
    return torch.randn(5, 1, 8, 8), torch.linspace(0.1, 1, 5), torch.tensor([0, 1, 2, 0, 1])


@pytest.mark.parametrize("as_scale", [float, lambda w: torch.full((5,), float(w))], ids=["number", "per sample"])
@torch.no_grad()
def test_scales_zero_and_one_equal_the_plain_models_exactly(denoiser, images, as_scale):
    x_t, t, y = images
    for w, labels in ((0, None), (1, y)):
        plain, guided = denoiser(x_t, t, labels), ClassifierFree(as_scale(w))(denoiser, denoiser.schedule)(x_t, t, y)
        assert torch.equal(guided.x0, plain.x0)
        assert torch.equal(guided.eps, plain.eps)


@pytest.mark.parametrize("w", [0.0, 1.0])
def test_there_is_no_jump_at_zero_or_one(mixture, noisy, w):
    at, below, above = (ClassifierFree(v)(mixture, mixture.schedule)(*noisy).x0 for v in (w, w - 1e-9, w + 1e-9))
    torch.testing.assert_close(below, at, rtol=0, atol=1e-6)
    torch.testing.assert_close(above, at, rtol=0, atol=1e-6)
    torch.testing.assert_close(above - at, at - below, rtol=0, atol=1e-12)


@every_scale
def test_guided_is_unconditional_plus_w_times_the_difference(mixture, noisy, scale):
    x_t, t, y = noisy
    guided = ClassifierFree(scale)(mixture, mixture.schedule)(x_t, t, y)
    for guided_value, c, u in zip(guided, mixture(x_t, t, y), mixture(x_t, t, None), strict=True):
        torch.testing.assert_close(guided_value, u + column(scale) * (c - u), rtol=0, atol=1e-12)


@every_scale
def test_guided_is_the_unconditional_noise_against_the_classifier_gradient(mixture, noisy, scale):
    """``eps - sigma w grad log p(y|x_t)``, the gradient by autograd: proves the sign and the size of w."""
    x_t, t, y = noisy
    x = x_t.clone().requires_grad_()
    log_likelihood = mixture.log_prob(x, t, y) - mixture.log_prob(x, t, None)
    (gradient,) = torch.autograd.grad(log_likelihood.sum(), x)
    sigma = mixture.schedule(t)[1][:, None]
    expected = mixture(x_t, t, None).eps - sigma * column(scale) * gradient
    guided = ClassifierFree(scale)(mixture, mixture.schedule)(x_t, t, y)
    torch.testing.assert_close(guided.eps, expected, rtol=0, atol=1e-12)


@every_scale
def test_two_mirrored_gaussians_have_the_closed_form_with_a_tanh(schedule, scale):
    """Means m and -m, covariance c^2 I: ``s^2 x0 = alpha c^2 x + m sigma^2 ((1 - w) tanh(alpha m x / s^2) + w)``."""
    mean, c = torch.tensor([0.6, -0.8], dtype=F64), 0.5
    oracle = GaussianMixture(schedule, torch.stack([mean, -mean]), c**2 * torch.eye(2, dtype=F64).expand(2, 2, 2))
    x_t, t = torch.randn(9, 2, dtype=F64), torch.linspace(0.05, 1, 9, dtype=F64)
    alpha, sigma = (value[:, None] for value in schedule(t))
    s_squared, w = alpha**2 * c**2 + sigma**2, column(scale)
    tanh = torch.tanh(alpha * (x_t @ mean)[:, None] / s_squared)
    expected = (alpha * c**2 * x_t + sigma**2 * mean * ((1 - w) * tanh + w)) / s_squared
    guided = ClassifierFree(scale)(oracle, schedule)(x_t, t, torch.zeros(9, dtype=torch.long))
    torch.testing.assert_close(guided.x0, expected, rtol=0, atol=1e-12)


@every_scale
def test_the_guided_image_and_noise_add_up_to_the_input(mixture, noisy, scale):
    x_t, t, y = noisy
    guided = ClassifierFree(scale)(mixture, mixture.schedule)(x_t, t, y)
    torch.testing.assert_close(perturb(*guided, t, mixture.schedule), x_t, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("scale", "labels"),
    [
        (0.0, [-1, -1, -1]),
        (1.0, [0, 1, 2]),
        (2.0, [0, 1, 2, -1, -1, -1]),
        (torch.tensor([0.0, 1.0, 2.0]), [1, 2, -1, -1]),
        (torch.tensor([1, 0, 0]), [0, -1, -1]),
    ],
    ids=str,
)
def test_one_call_of_the_network_evaluates_what_each_scale_needs(mixture, counted, scale, labels):
    denoise = counted(mixture)
    guided = ClassifierFree(scale)(denoise, mixture.schedule)
    guided(torch.randn(3, 2, dtype=F64), torch.full((3,), 0.5, dtype=F64), torch.tensor([0, 1, 2]))
    assert denoise.calls == [labels]


@torch.no_grad()
def test_each_sample_gets_its_own_scale(denoiser, images):
    scales = torch.tensor([0.0, 0.5, 1.0, 2.0, 5.0])
    together = ClassifierFree(scales)(denoiser, denoiser.schedule)(*images)
    for i, w in enumerate(scales.tolist()):
        alone = ClassifierFree(w)(denoiser, denoiser.schedule)(*images)
        torch.testing.assert_close(together.x0[i], alone.x0[i], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_without_labels_it_is_the_unconditional_model_at_every_scale(mixture, noisy, counted, scale):
    x_t, t, _ = noisy
    denoise = counted(mixture)
    assert torch.equal(ClassifierFree(scale)(denoise, mixture.schedule)(x_t, t, None).x0, mixture(x_t, t, None).x0)
    assert denoise.calls == [None]


def test_a_sample_without_a_label_is_not_guided(mixture, noisy):
    x_t, t, y = noisy
    y = torch.where(y == 1, UNLABELLED, y)
    guided = ClassifierFree(5.0)(mixture, mixture.schedule)(x_t, t, y).x0
    unconditional = mixture(x_t, t, None).x0
    unlabelled = y == UNLABELLED
    torch.testing.assert_close(guided[unlabelled], unconditional[unlabelled], rtol=0, atol=1e-12)
    assert ((guided - unconditional)[~unlabelled].abs().amax(1) > 1e-3).all()


def test_inputs_are_not_changed(mixture, noisy):
    before = [value.clone() for value in noisy]
    ClassifierFree(2.0)(mixture, mixture.schedule)(*noisy)
    assert all(torch.equal(value, old) for value, old in zip(noisy, before, strict=True))


def test_gradients_flow_through_it(mixture, noisy):
    x_t, t, y = noisy
    x = x_t.clone().requires_grad_()
    ClassifierFree(2.0)(mixture, mixture.schedule)(x, t, y).x0.sum().backward()
    assert (x.grad != 0).all()


@pytest.mark.parametrize("scale", [math.nan, math.inf, torch.ones(2, 2)], ids=str)
def test_an_impossible_scale_raises(scale):
    with pytest.raises(ValueError, match="scale must"):
        ClassifierFree(scale)


def test_settings_are_frozen_and_can_be_replaced():
    guidance = ClassifierFree(1.0)
    assert replace(guidance, scale=3.0).scale == 3.0
    with pytest.raises(FrozenInstanceError):
        guidance.scale = 3.0


def test_scales_for_another_number_of_samples_raise(mixture):
    denoise = ClassifierFree(torch.tensor([1.0, 2.0]))(mixture, mixture.schedule)
    with pytest.raises(ValueError, match="scale has 2 values for 3 samples"):
        denoise(torch.zeros(3, 2), torch.full((3,), 0.5), torch.zeros(3, dtype=torch.long))
