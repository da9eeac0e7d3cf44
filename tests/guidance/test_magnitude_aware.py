import math

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance import ClassifierFree, MagnitudeAware

F64 = torch.float64


@pytest.mark.slow  # importing diffusers takes seconds
@pytest.mark.parametrize("shape", [(5, 1, 4, 6), (5, 3, 6, 4), (5, 2)])
def test_it_is_the_guider_of_diffusers_on_the_flow_velocity(shape, schedule):
    guiders = pytest.importorskip("diffusers.guiders")
    x_t, t, y = torch.randn(shape, dtype=F64), torch.linspace(0.1, 1, 5, dtype=F64), torch.zeros(5, dtype=torch.long)
    c, u = (Prediction.from_x0(torch.randn(shape, dtype=F64), x_t, t, schedule) for _ in range(2))

    def denoise(x_t, t, y):
        return Prediction(*(torch.cat([a, b]) for a, b in zip(c, u, strict=True)))

    for w, damping in ((10.0, 8.0), (3.0, 0.5), (0.0, 1.0)):
        guider = guiders.MagnitudeAwareGuidance(guidance_scale=w, alpha=damping)
        velocities = ((each.eps - each.x0).flatten(1) for each in (c, u))  # diffusers raises for images here
        expected = guider.forward(*velocities).pred.view(shape)
        guided = MagnitudeAware(w, damping)(denoise, schedule)(x_t, t, y)
        torch.testing.assert_close(guided.eps - guided.x0, expected, rtol=0, atol=1e-12 * expected.abs().max().item())


def test_a_velocity_of_length_five_and_a_difference_of_length_one_damp_by_a_fifth(schedule):
    """At ``alpha = sigma`` the velocities ``eps - x0`` of u and of c are (3, 4) and (3, 5)."""
    t = schedule.time(torch.zeros(1, dtype=F64))
    x_t, f_u, f_c = (torch.tensor([each], dtype=F64) for each in ([0.7, -0.2], [3.0, 4.0], [3.0, 5.0]))
    u, c = (Prediction.from_x0((x_t * math.sqrt(2) - f) / 2, x_t, t, schedule) for f in (f_u, f_c))

    def denoise(x_t, t, y):
        return Prediction(*(torch.cat([a, b]) for a, b in zip(c, u, strict=True)))

    guided = MagnitudeAware(6.0, 2.0)(denoise, schedule)(x_t, t, torch.zeros(1, dtype=torch.long))
    expected = torch.tensor([[3.0, 5.0 + 5.0 * math.exp(-2 / 5)]], dtype=F64)
    torch.testing.assert_close(guided.eps - guided.x0, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.7, torch.linspace(-1, 3, 9)])
def test_without_damping_it_is_classifier_free_guidance(scale, mixture, noisy):
    one, other = (
        each(mixture, mixture.schedule)(*noisy) for each in (MagnitudeAware(scale, 0.0), ClassifierFree(scale))
    )
    assert torch.equal(one.x0, other.x0)
    assert torch.equal(one.eps, other.eps)


def test_a_scale_of_one_is_the_conditional_model_at_one_evaluation(mixture, noisy, counted):
    model = counted(mixture)
    assert torch.equal(MagnitudeAware(1.0)(model, mixture.schedule)(*noisy).x0, mixture(*noisy).x0)
    assert model.calls == [noisy[2].tolist()]


def test_samples_have_scales_of_their_own(mixture, noisy):
    x_t, t, y = noisy
    scale = torch.linspace(-1, 4, len(t), dtype=F64)
    together = MagnitudeAware(scale)(mixture, mixture.schedule)(x_t, t, y)
    for k in range(len(t)):
        one = MagnitudeAware(scale[k].item())(mixture, mixture.schedule)(x_t[k, None], t[k, None], y[k, None])
        torch.testing.assert_close(together.x0[k, None], one.x0, rtol=0, atol=1e-12)


@pytest.mark.parametrize("damping", [0.0, 8.0])
def test_a_velocity_of_zero_changes_nothing(damping, schedule):
    def denoise(x_t, t, y):
        x0 = (y >= 0).to(x_t)[:, None].expand_as(x_t)
        return Prediction(x0, -x0)

    x_t, t, y = torch.zeros(2, 2), torch.full((2,), 0.5), torch.tensor([0, 1])
    guided = MagnitudeAware(3.0, damping)(denoise, schedule)(x_t, t, y)
    assert torch.equal(guided.x0, torch.full((2, 2), 3.0))


@pytest.mark.parametrize("damping", [-1.0, math.inf, math.nan])
def test_an_invalid_damping_raises(damping):
    with pytest.raises(ValueError, match="damping must be at least 0 and finite"):
        MagnitudeAware(2.0, damping)
