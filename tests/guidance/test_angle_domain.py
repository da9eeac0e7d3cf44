import math

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance import AngleDomain, ClassifierFree
from guided_diffusion.guidance.angle_domain import rotation
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64


@pytest.fixture
def schedule():
    """One schedule is enough here."""
    return Cosine()


def authors_rule(c, u, w, max_angle):
    """The formula of the paper's code, with the angle by arccos."""
    theta = torch.acos(torch.cosine_similarity(c, u, dim=1))[:, None]
    turn = ((w - 1) * theta).clamp(-max_angle, max_angle)
    p = (c - u) - (((c - u) * u).sum(1) / (u * u).sum(1))[:, None] * u
    return turn.cos() * c + turn.sin() / theta.sin() * p


@pytest.mark.parametrize(("w", "max_angle"), [(0.3, 60.0), (2.0, 60.0), (8.0, 20.0)])
def test_it_is_the_formula_of_the_paper(mixture, noisy, w, max_angle):
    x_t, t, y = noisy
    guided = AngleDomain(w, max_angle)(mixture, mixture.schedule)(x_t, t, y)
    expected = authors_rule(mixture(x_t, t, y).x0, mixture(x_t, t, None).x0, w, math.radians(max_angle))
    torch.testing.assert_close(guided.x0, expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(perturb(*guided, t, mixture.schedule), x_t, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("w", "turn"), [(2.0, 30), (2.5, 45), (3.0, 60), (9.0, 60), (0.0, -30)])
def test_a_case_by_hand(w, turn):
    """``u = (2, 0)`` and c of norm 1 at 30 degrees: ``p = (0, 1/2)``, and ``sin(30) = 1/2``."""
    c, u = torch.tensor([[math.sqrt(3) / 2, 0.5]], dtype=F64), torch.tensor([[2.0, 0.0]], dtype=F64)
    cos, sin = math.cos(math.radians(turn)), math.sin(math.radians(turn))
    changed = c + rotation(c, u, torch.tensor([[w - 1]], dtype=F64), math.radians(60))
    expected = torch.tensor([[cos * math.sqrt(3) / 2, cos / 2 + sin]], dtype=F64)
    torch.testing.assert_close(changed, expected, rtol=0, atol=1e-12)


def test_for_small_differences_it_is_classifier_free_guidance_of_the_perpendicular_part():
    u = torch.tensor([[3.0, 4.0]], dtype=F64)
    q = 1e-6 * torch.tensor([[-0.8, 0.6]], dtype=F64)
    changed = rotation(u + q, u, torch.tensor([[2.0]], dtype=F64), math.radians(60))
    torch.testing.assert_close(changed, 2 * q, rtol=0, atol=1e-11)


def test_in_one_dimension_it_is_the_conditional_model(schedule):
    """Two numbers of the same sign have no angle."""
    oracle = GaussianMixture(schedule, torch.tensor([[5.0], [6.0]], dtype=F64), torch.full((2, 1, 1), 0.1, dtype=F64))
    x_t, t, y = torch.randn(9, 1, dtype=F64), torch.linspace(0.1, 1, 9, dtype=F64), torch.arange(9) % 2
    guided = AngleDomain(5.0)(oracle, schedule)(x_t, t, y)
    torch.testing.assert_close(guided.x0, oracle(x_t, t, y).x0, rtol=0, atol=1e-12)


def test_scales_zero_and_one_are_the_unconditional_and_the_conditional_model(mixture, noisy):
    per_sample = torch.tensor([0.0, 1.0, 2.0] * 3)
    guided = AngleDomain(per_sample)(mixture, mixture.schedule)(*noisy)
    plain = ClassifierFree(per_sample)(mixture, mixture.schedule)(*noisy)
    for start in (0, 1):
        assert torch.equal(guided.x0[start::3], plain.x0[start::3])


@pytest.mark.parametrize(("c", "u"), [(0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, -1.0), (1.0, 1.0), (1e-25, 1.0)])
def test_it_is_finite_where_the_angle_is_undefined(c, u):
    def denoise(x_t, t, y):
        return Prediction(torch.where((y >= 0)[:, None, None, None], c, u).expand_as(x_t), torch.zeros_like(x_t))

    guided = AngleDomain(3.0)(denoise, Cosine())(torch.zeros(2, 1, 3, 4), torch.ones(2), torch.tensor([0, 1]))
    assert all(value.isfinite().all() for value in guided)


@pytest.mark.parametrize("angle", [0.0, 181.0, math.nan])
def test_an_invalid_angle_raises(angle):
    with pytest.raises(ValueError, match=r"max_angle must be in \(0, 180\]"):
        AngleDomain(2.0, angle)


def test_opposite_predictions_of_any_size_stay_finite():
    c, u = torch.tensor([[8.0, 0.0], [0.5, 0.5]]), torch.tensor([[-1.0, 0.0], [-3.0, -3.0]])
    change = rotation(c, u, torch.ones(2, 1), math.radians(60))
    assert change.isfinite().all()
    torch.testing.assert_close((c + change)[0], c[0] / 2, rtol=0, atol=1e-5)
