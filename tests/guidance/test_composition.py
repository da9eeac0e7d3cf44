import pytest
import torch

from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import ClassifierFree, Composition
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler

F64 = torch.float64


@pytest.mark.parametrize("w", [0.0, 1.0, 2.0, torch.linspace(-1, 3, 9, dtype=F64)])
def test_each_class_adds_its_difference_from_the_unconditional_model(w, mixture, noisy):
    x_t, t, y = noisy
    guided = Composition(w, [1, 2], [1.5, -0.5])(mixture, mixture.schedule)(*noisy)
    u, c = mixture(x_t, t, None), mixture(x_t, t, y)
    first, second = (mixture(x_t, t, torch.full_like(y, label)) for label in (1, 2))
    column = torch.as_tensor(w, dtype=F64).expand(9)[:, None]
    for value, none, own, one, two in zip(guided, u, c, first, second, strict=True):
        by_hand = none + column * (own - none) + 1.5 * (one - none) - 0.5 * (two - none)
        torch.testing.assert_close(value, by_hand, rtol=0, atol=1e-12)


@pytest.mark.parametrize("w", [3.0, -1.0])
def test_one_class_for_samples_without_a_label_is_classifier_free_guidance(w, mixture, noisy):
    x_t, t, _ = noisy
    free = ClassifierFree(w)(mixture, mixture.schedule)(x_t, t, torch.full((9,), 2))
    for y in (None, torch.full((9,), -1)):
        guided = Composition(1.0, [2], [w])(mixture, mixture.schedule)(x_t, t, y)
        torch.testing.assert_close(guided.x0, free.x0, rtol=0, atol=1e-12)


def test_the_score_is_that_of_the_product_of_densities(mixture, noisy):
    """p(x) times (p(x|y) / p(x))^w times (p(x|1) / p(x))^-0.5, at the noise level of each sample."""
    x_t, t, y = noisy
    guided = Composition(2.0, [1], [-0.5])(mixture, mixture.schedule)(*noisy)
    x = x_t.clone().requires_grad_()
    log_p, log_c = mixture.log_prob(x, t), mixture.log_prob(x, t, y)
    log_1 = mixture.log_prob(x, t, torch.ones_like(y))
    (score,) = torch.autograd.grad((log_p + 2 * (log_c - log_p) - 0.5 * (log_1 - log_p)).sum(), x)
    sigma = mixture.schedule(t)[1][:, None]
    torch.testing.assert_close(guided.eps, -sigma * score, rtol=0, atol=1e-10)


@pytest.mark.parametrize("settings", [{}, {"classes": [1, 2], "scales": [0.0, 0.0]}])
@pytest.mark.parametrize("w", [0.0, 1.0, 3.0, torch.linspace(-1, 3, 9, dtype=F64)])
def test_without_classes_it_is_classifier_free_guidance(w, settings, mixture, noisy):
    guided = Composition(w, **settings)(mixture, mixture.schedule)(*noisy)
    assert torch.equal(guided.x0, ClassifierFree(w)(mixture, mixture.schedule)(*noisy).x0)
    unguided = Composition(w, [1], [2.0]).unguided()(mixture, mixture.schedule)(*noisy)
    assert torch.equal(unguided.x0, mixture(*noisy).x0)


def test_each_class_takes_one_evaluation(mixture):
    for settings, count in (((1.0,), 5), ((2.0,), 10), ((2.0, [0, 1], [1.0, -1.0]), 20), ((1.0, [1], [1.0]), 15)):
        recipe = Recipe(Composition(*settings), sampler=Sampler(steps=5))
        assert evaluations_per_sample(recipe, mixture.schedule) == count


@pytest.mark.parametrize(
    ("classes", "scales", "message"),
    [
        ([1], [], "scales must have one number for each of 1 classes"),
        ([-1], [1.0], "classes must be at least 0"),
        ([1], [float("inf")], "scales must be finite"),
        ([3], [1.0], "classes must be below 3, the number of classes"),
    ],
)
def test_wrong_classes_raise(classes, scales, message, mixture, noisy):
    with pytest.raises(ValueError, match=message):
        Composition(1.0, classes, scales)(mixture, mixture.schedule)(*noisy)
