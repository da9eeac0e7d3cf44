import pytest
import torch

from guided_diffusion.classifiers import gradient
from guided_diffusion.guidance import Reconstruction
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.schedules import Cosine

F64 = torch.float64
SCHEDULE = Cosine()


def test_the_gradient_through_the_estimate_is_the_chain_rule_on_a_gaussian():
    """The estimate of N(m, v) is affine in x_t: its slope is alpha v / (alpha^2 v + sigma^2)."""
    oracle = GaussianMixture.gaussian(SCHEDULE, torch.zeros(2, dtype=F64), 0.3 * torch.eye(2, dtype=F64))
    weights = torch.randn(2, 3, dtype=F64)

    def classify(x, t):
        assert (t == 0.01).all()
        return x @ weights

    x, t, y = torch.randn(4, 2, dtype=F64), torch.tensor([0.1, 0.4, 0.7, 1.0], dtype=F64), torch.tensor([0, 1, 2, -1])
    alpha, sigma = (value[:, None] for value in SCHEDULE(t))
    u = oracle(x, t)
    slope = alpha * 0.3 / (alpha**2 * 0.3 + sigma**2)
    grad = slope * gradient(classify, u.x0, torch.full((4,), 0.01, dtype=F64), y.clamp(min=0)) * (y >= 0)[:, None]
    guided = Reconstruction(classify, 2.0)(oracle, SCHEDULE)(x, t, y)
    torch.testing.assert_close(guided.x0, u.x0 + 2 * sigma**2 / alpha * grad, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(alpha * guided.x0 + sigma * guided.eps, x, rtol=1e-10, atol=1e-12)
    assert torch.equal(guided.x0[3], u.x0[3])


def test_a_scale_of_zero_or_no_label_is_exactly_the_unconditional_model(mixture, noisy):
    x, t, y = noisy
    u = mixture(x, t)
    scales = torch.tensor([0.0, 1.0, 2.0] * 3)
    guidance = Reconstruction(mixture.log_posterior, scales)
    for prediction in (
        guidance(mixture, mixture.schedule)(x, t, None),
        guidance.unguided()(mixture, mixture.schedule)(x, t, y),
    ):
        assert torch.equal(prediction.x0, u.x0)
    mixed = guidance(mixture, mixture.schedule)(x, t, y)
    assert torch.equal(mixed.x0[::3], u.x0[::3])
    assert not torch.isclose(mixed.x0[1::3], u.x0[1::3]).all(1).any()


def test_it_needs_a_classifier_and_a_time_between_0_and_1(mixture):
    with pytest.raises(ValueError, match="needs a classifier"):
        Reconstruction()(mixture, mixture.schedule)
    with pytest.raises(ValueError, match=r"clean_t must be in \[0, 1\], got 1.5"):
        Reconstruction(clean_t=1.5)
