import pytest
import torch

from guided_diffusion.evaluation.cost import evaluations_per_sample, labels_needed
from guided_diffusion.guidance import Autoguidance, ClassifierFree, Guidance, needs_weak
from guided_diffusion.oracles import GaussianMixture
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, heun, uniform_times
from guided_diffusion.schedules import Cosine

F64 = torch.float64


@pytest.mark.parametrize("w", [0.0, 0.5, 1.0, 3.0])
def test_a_wider_gaussian_as_the_weak_model_gives_the_closed_form(w):
    """The guided score is linear, and the ODE from r = sigma / alpha to 0 multiplies ``x / alpha`` by a known factor.

    With variances v and v', ``d log z / dr = w r / (v + r^2) + (1 - w) r / (v' + r^2)``.
    """
    schedule, v, wider = Cosine(), torch.tensor([0.09, 0.25], dtype=F64), torch.tensor([0.3, 0.5], dtype=F64)
    model, weak = (GaussianMixture.gaussian(schedule, torch.zeros(2, dtype=F64), torch.diag(c)) for c in (v, wider))
    noise = torch.tensor([[1.0, -0.7]], dtype=F64)
    guided = Autoguidance(weak, w)(model, schedule)
    alpha, sigma = schedule(torch.ones((), dtype=F64))
    squared = (sigma / alpha) ** 2
    factor = (v / (v + squared)) ** (w / 2) * (wider / (wider + squared)) ** ((1 - w) / 2)
    errors = []
    for steps in (20, 40):
        *_, last = heun(guided, schedule, noise, uniform_times(schedule, steps), torch.zeros(1, dtype=torch.long))
        errors.append((last.x / (noise / alpha * factor) - 1).abs().max().item())
    assert errors[1] < 0.015
    assert errors[0] > 3 * errors[1]  # the error of Heun's method, of second order


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5, torch.linspace(-1, 3, 9)])
def test_the_unconditional_model_as_the_weak_one_gives_classifier_free_guidance(scale, mixture, noisy):
    def weak(x_t, t, y):
        return mixture(x_t, t, None)

    guided = Autoguidance(weak, scale)(mixture, mixture.schedule)(*noisy)
    free = ClassifierFree(scale)(mixture, mixture.schedule)(*noisy)
    torch.testing.assert_close(guided.x0, free.x0, rtol=0, atol=1e-12)
    torch.testing.assert_close(guided.eps, free.eps, rtol=0, atol=1e-12)


def test_it_declares_that_it_needs_a_weak_model(mixture, noisy):
    assert needs_weak(Autoguidance)
    assert not needs_weak(ClassifierFree())
    with pytest.raises(ValueError, match="autoguidance needs a weaker model: add weak=PATH"):
        Autoguidance()(mixture, mixture.schedule)
    guidance = Autoguidance(scale=2.0).with_weak(mixture)
    assert isinstance(guidance, Guidance)
    assert torch.equal(guidance(mixture, mixture.schedule)(*noisy).x0, mixture(*noisy).x0)


def test_the_evaluations_of_both_models_are_counted(mixture):
    for scale, count in ((0.0, 5), (1.0, 5), (2.0, 10)):
        recipe = Recipe(Autoguidance(None, scale), sampler=Sampler(steps=5))
        assert evaluations_per_sample(recipe, mixture.schedule) == count
        assert labels_needed(recipe, mixture.schedule) == {True}
