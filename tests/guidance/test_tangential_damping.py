import pytest
import torch
from diffusers.guiders.tangential_classifier_free_guidance import normalized_guidance

from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance import ClassifierFree, TangentialDamping
from guided_diffusion.guidance.tangential_damping import damping
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64


@pytest.mark.parametrize("w", [0.5, 7.0])
def test_eps_is_that_of_diffusers(mixture, noisy, w):
    x_t, t, y = noisy
    guided = TangentialDamping(w)(mixture, mixture.schedule)(x_t, t, y)
    expected = normalized_guidance(mixture(x_t, t, y).eps, mixture(x_t, t, None).eps, w)
    torch.testing.assert_close(guided.eps, expected, rtol=0, atol=1e-5)  # diffusers' singular vectors are in float32
    torch.testing.assert_close(perturb(*guided, t, mixture.schedule), x_t, rtol=0, atol=1e-12)


def test_the_projection_is_that_of_a_singular_value_decomposition():
    c, u = torch.randn(50, 3, 4, 5, dtype=F64), torch.randn(50, 3, 4, 5, dtype=F64)
    *_, right = torch.linalg.svd(torch.stack([c.flatten(1), u.flatten(1)], 1), full_matrices=False)
    projected = (u.flatten(1) * right[:, 0]).sum(1, keepdim=True) * right[:, 0]
    torch.testing.assert_close((u + damping(c, u)).flatten(1), projected, rtol=0, atol=1e-12)


def test_cases_by_hand():
    """The Gram matrix of (3, 0) and (0, 1) has the axes as eigenvectors; that of (2, 1) and (1, 2) the diagonals."""
    c = torch.tensor([[3.0, 0.0], [0.0, 1.0], [2.0, 1.0]], dtype=F64)
    u = torch.tensor([[0.0, 1.0], [3.0, 0.0], [1.0, 2.0]], dtype=F64)
    expected = torch.tensor([[0.0, 0.0], [3.0, 0.0], [1.5, 1.5]], dtype=F64)
    torch.testing.assert_close(u + damping(c, u), expected, rtol=0, atol=1e-12)


def test_where_the_scores_are_parallel_it_is_classifier_free_guidance(schedule):
    """In one dimension they always are."""
    means, covariances = torch.tensor([[0.7], [-0.2]], dtype=F64), torch.full((2, 1, 1), 0.1, dtype=F64)
    oracle = GaussianMixture(schedule, means, covariances)
    x_t, t, y = torch.linspace(-2, 2, 9, dtype=F64)[:, None], torch.linspace(0.1, 1, 9, dtype=F64), torch.arange(9) % 2
    guided, free = (method(5.0)(oracle, schedule)(x_t, t, y) for method in (TangentialDamping, ClassifierFree))
    torch.testing.assert_close(guided.eps, free.eps, rtol=0, atol=1e-12)


def test_scales_zero_and_one_are_the_unconditional_and_the_conditional_model(mixture, noisy):
    per_sample = torch.tensor([0.0, 1.0, 2.0] * 3)
    guided = TangentialDamping(per_sample)(mixture, mixture.schedule)(*noisy)
    plain = ClassifierFree(per_sample)(mixture, mixture.schedule)(*noisy)
    assert torch.equal(guided.x0[1::3], plain.x0[1::3])
    assert torch.equal(guided.x0[::3], plain.x0[::3])
    assert (guided.x0 - plain.x0)[2::3].abs().max() > 1e-3


def test_it_is_finite_and_changes_nothing_where_both_scores_are_zero():
    def denoise(x_t, t, y):
        return Prediction(torch.ones_like(x_t), torch.zeros_like(x_t))

    guided = TangentialDamping(3.0)(denoise, Cosine())(torch.zeros(2, 1, 3, 4), torch.ones(2), torch.tensor([0, 1]))
    assert guided.eps.eq(0).all()
    assert guided.x0.eq(1).all()
