import math

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import Adaptive, ClassifierFree
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, ddim, heun, uniform_times
from guided_diffusion.schedules import Cosine

F64 = torch.float64
SCHEDULE = Cosine()
TIMES = uniform_times(SCHEDULE, 4)
LABELS = torch.arange(4)


def nearing(x_t, t, y):
    """Return a unit vector that depends on the label and nears the unconditional one, (1, 0), with time.

    The cosines of the labels 0 to 3 in four steps: always 1; above .9 from the second step on; above .9 in the second
    step alone; never.
    """
    step = (4 - 4 * t).round().long()
    cosines = torch.tensor([[1.0, 1.0, 1.0, 1.0], [0.5, 0.95, 0.96, 0.97], [0.5, 0.95, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4]])
    cosine = torch.where(y >= 0, cosines[y.clamp(min=0), step.clamp(max=3)], 1.0).to(x_t)
    x0 = torch.stack([cosine, (1 - cosine**2).sqrt()], 1)
    return Prediction.from_x0(x0, x_t, t, SCHEDULE)


def walked(guidance, denoise=nearing, sampler=ddim, labels=LABELS, times=TIMES, schedule=SCHEDULE, noise=None):
    noise = torch.zeros(len(labels), 2, dtype=F64) if noise is None else noise
    return [step.x0 for step in sampler(guidance(denoise, schedule), schedule, noise, times, labels)]


def test_guidance_ends_for_good_after_the_step_in_which_a_sample_agrees(counted):
    model = counted(nearing)
    found = torch.stack(walked(Adaptive(3.0, 0.9), model))
    free, conditional = (torch.stack(walked(ClassifierFree(w))) for w in (3.0, 1.0))
    guided_steps = torch.tensor([1, 2, 2, 4])
    for sample, steps in enumerate(guided_steps):
        assert torch.equal(found[:steps, sample], free[:steps, sample])
        assert torch.equal(found[steps:, sample], conditional[steps:, sample])
    assert [len(call) for call in model.calls] == [8, 7, 5, 5]


def test_both_evaluations_of_a_step_of_heun_are_guided_alike(counted):
    model = counted(nearing)
    walked(Adaptive(3.0, 0.9), model, heun)
    assert [len(call) for call in model.calls] == [8, 8, 7, 7, 5, 5, 5]


@pytest.mark.parametrize("sampler", [ddim, heun])
def test_a_sample_does_not_depend_on_its_batch(sampler, mixture):
    schedule, noise = mixture.schedule, torch.randn(12, 2, dtype=F64)
    labels, scale, times = torch.arange(12) % 3, torch.linspace(0, 4, 12), uniform_times(schedule, 8)

    def samples(rows, scale):
        return walked(Adaptive(scale, 0.9), mixture, sampler, labels[rows], times, schedule, noise[rows])[-1]

    whole = samples(torch.arange(12), scale)
    for rows in (torch.arange(5), torch.arange(5, 12), torch.arange(12).flip(0)):
        torch.testing.assert_close(samples(rows, scale[rows]), whole[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.7, torch.tensor([0.0, 1.0, 2.7])])
def test_a_bound_of_one_is_classifier_free_guidance(scale, mixture):
    settings = mixture, heun, torch.tensor([0, 1, 2]), TIMES, mixture.schedule, torch.randn(3, 2, dtype=F64)
    one, other = (walked(guidance, *settings) for guidance in (Adaptive(scale, 1.0), ClassifierFree(scale)))
    assert torch.equal(torch.stack(one), torch.stack(other))


def test_a_scale_of_one_is_the_conditional_model_at_one_evaluation(counted):
    model = counted(nearing)
    assert torch.equal(torch.stack(walked(Adaptive(1.0, 0.9), model)), torch.stack(walked(ClassifierFree(1.0))))
    assert model.calls == [[0, 1, 2, 3]] * 4


def test_predictions_of_zero_are_guided_to_zero():
    def zeros(x_t, t, y):
        return Prediction(torch.zeros_like(x_t), torch.zeros_like(x_t))

    assert not torch.stack(walked(Adaptive(3.0), zeros)).any()


@pytest.mark.parametrize(("scale", "evaluations"), [(0.0, 8), (1.0, 4), (2.0, 8)])
def test_the_evaluations_counted_are_the_most_that_a_sample_may_take(scale, evaluations):
    assert evaluations_per_sample(Recipe(Adaptive(scale), sampler=Sampler(steps=4)), SCHEDULE) == evaluations


@pytest.mark.parametrize("bound", [-1.1, math.inf, math.nan])
def test_an_invalid_bound_raises(bound):
    with pytest.raises(ValueError, match="bound must be in "):
        Adaptive(2.0, bound)
