import pytest
import torch
from diffusers.guiders.classifier_free_zero_star_guidance import cfg_zero_star_scale

from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance import ClassifierFree, ZeroStar
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64


def velocity(prediction):
    return prediction.eps - prediction.x0


@pytest.mark.parametrize("w", [0.5, 7.0])
def test_the_flow_velocity_is_that_of_diffusers(mixture, noisy, w):
    x_t, t, y = noisy
    guided = ZeroStar(w)(mixture, mixture.schedule)(x_t, t, y)
    f_c, f_u = velocity(mixture(x_t, t, y)), velocity(mixture(x_t, t, None))
    k = cfg_zero_star_scale(f_c, f_u)
    torch.testing.assert_close(velocity(guided), k * f_u + w * (f_c - k * f_u), rtol=0, atol=5e-6)  # k is in float32
    torch.testing.assert_close(perturb(*guided, t, mixture.schedule), x_t, rtol=0, atol=1e-12)


def test_a_case_by_hand():
    """``f_c = (1, 1)`` and ``f_u = (2, 0)``: ``k = 1/2``, and ``f = (1, 0) + 3 (0, 1)`` at w = 3."""
    schedule, x_t, t = Cosine(), torch.zeros(1, 2, dtype=F64), torch.full((1,), 0.3, dtype=F64)
    alpha, sigma = schedule(t)

    def denoise(x_t, t, y):
        f = torch.where((y >= 0)[:, None], torch.tensor([1.0, 1.0], dtype=F64), torch.tensor([2.0, 0.0], dtype=F64))
        return Prediction(-sigma * f / (alpha + sigma), alpha * f / (alpha + sigma))

    guided = ZeroStar(3.0)(denoise, schedule)(x_t, t, torch.tensor([0]))
    torch.testing.assert_close(velocity(guided), torch.tensor([[1.0, 3.0]], dtype=F64), rtol=0, atol=1e-12)


def test_in_one_dimension_it_is_the_conditional_model_at_every_scale(schedule):
    """There ``k f_u = f_c``."""
    means, covariances = torch.tensor([[0.7], [-0.2]], dtype=F64), torch.full((2, 1, 1), 0.1, dtype=F64)
    oracle = GaussianMixture(schedule, means, covariances)
    x_t, t, y = torch.linspace(-2, 2, 9, dtype=F64)[:, None], torch.linspace(0.1, 1, 9, dtype=F64), torch.arange(9) % 2
    guided = ZeroStar(5.0)(oracle, schedule)(x_t, t, y)
    torch.testing.assert_close(guided.x0, oracle(x_t, t, y).x0, rtol=0, atol=1e-12)


def test_scales_zero_and_one_are_the_unconditional_and_the_conditional_model(mixture, noisy):
    per_sample = torch.tensor([0.0, 1.0, 2.0] * 3)
    guided = ZeroStar(per_sample)(mixture, mixture.schedule)(*noisy)
    plain = ClassifierFree(per_sample)(mixture, mixture.schedule)(*noisy)
    assert torch.equal(guided.x0[1::3], plain.x0[1::3])
    assert torch.equal(guided.x0[::3], plain.x0[::3])
    assert (guided.x0 - plain.x0)[2::3].abs().max() > 1e-3


def test_it_is_finite_where_velocities_are_zero():
    def denoise(x_t, t, y):
        return Prediction(torch.zeros_like(x_t), torch.zeros_like(x_t))

    guided = ZeroStar(3.0)(denoise, Cosine())(torch.zeros(2, 1, 3, 4), torch.ones(2), torch.tensor([0, 1]))
    assert all(value.eq(0).all() for value in guided)
