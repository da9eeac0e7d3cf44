import pytest
import torch

from guided_diffusion.denoisers import Denoiser, Prediction
from guided_diffusion.guidance import SelfGuidance
from guided_diffusion.schedules import Cosine

F64 = torch.float64


@pytest.mark.parametrize("w", [0.0, 0.5, 3.0, torch.linspace(-1, 4, 9, dtype=F64)])
def test_eps_is_extrapolated_from_that_of_the_later_time(w, mixture, noisy):
    x_t, t, y = noisy
    guided = SelfGuidance(w, shift=0.1)(mixture, mixture.schedule)(*noisy)
    m, b = mixture(x_t, t, y), mixture(x_t, (t + 0.1).clamp(max=1), y)
    column = torch.as_tensor(w, dtype=F64).expand(9)[:, None]
    torch.testing.assert_close(guided.eps, b.eps + column * (m.eps - b.eps), rtol=0, atol=1e-12)
    alpha, sigma = (value[:, None] for value in mixture.schedule(t))
    torch.testing.assert_close(alpha * guided.x0 + sigma * guided.eps, x_t, rtol=0, atol=1e-12)


def test_it_takes_the_eps_of_the_network_not_its_x0():
    """A Gaussian by hand: of variance v, the eps at time s is ``sigma_s x / (alpha_s^2 v + sigma_s^2)``."""
    schedule, x, t, s = Cosine(), torch.tensor([[0.4]], dtype=F64), 0.3, 0.5
    v = 0.2

    def denoise(x_t, t, y):
        alpha, sigma = (value[:, None] for value in schedule(t))
        variance = alpha**2 * v + sigma**2
        return Prediction(alpha * v / variance * x_t, sigma / variance * x_t)

    guided = SelfGuidance(2.0, shift=s - t)(denoise, schedule)(x, torch.tensor([t], dtype=F64), None)
    (a, b), (c, d) = (tuple(float(value) for value in schedule(torch.tensor(time, dtype=F64))) for time in (t, s))
    eps = 2 * b / (a**2 * v + b**2) * 0.4 - d / (c**2 * v + d**2) * 0.4
    assert guided.eps.item() == pytest.approx(eps, abs=1e-12)
    assert guided.x0.item() == pytest.approx((0.4 - b * eps) / a, abs=1e-12)


@pytest.mark.parametrize("guidance", [SelfGuidance(1.0), SelfGuidance(5.0, shift=0.0)])
def test_without_strength_or_shift_it_is_the_model_itself(guidance, network):
    denoiser, t = Denoiser(network, Cosine()), torch.tensor([0.2, 0.7, 1.0])
    x_t, y = torch.randn(3, 1, 8, 8), torch.tensor([0, 2, -1])
    guided, plain = guidance(denoiser, denoiser.schedule)(x_t, t, y), denoiser(x_t, t, y)
    assert torch.equal(guided.x0, plain.x0)
    assert torch.equal(guided.eps, plain.eps)


def test_no_time_is_later_than_1(mixture, noisy):
    x_t, _, y = noisy
    t = torch.ones(9, dtype=F64)
    assert torch.equal(SelfGuidance(4.0)(mixture, mixture.schedule)(x_t, t, y).x0, mixture(x_t, t, y).x0)


@pytest.mark.parametrize("shift", [-0.1, 1.1, float("nan")])
def test_a_shift_out_of_range_raises(shift):
    with pytest.raises(ValueError, match=r"shift must be in \[0, 1\]"):
        SelfGuidance(2.0, shift)
