import pytest
import torch

from guided_diffusion.evaluation.cost import evaluations_per_sample, labels_needed
from guided_diffusion.guidance import IndependentCondition
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import SampleNoise, Sampler, Walk, ddim, heun, uniform_times

F64 = torch.float64


class Quantiles:
    """Noise whose rows are quantiles of the normal distribution, so that every class comes equally often."""

    __call__ = staticmethod(torch.randn)

    def named(self, name):
        return lambda shape: torch.special.ndtri((torch.arange(shape[0], dtype=F64) + 0.5) / shape[0])


def begun(denoise, draw):
    walk = Walk(torch.tensor([0.6, 0.3], dtype=F64), draw)
    next(iter(walk))
    return denoise.begin(walk)


@pytest.mark.parametrize("w", [0.0, 1.0, 2.5, -1.0])
def test_the_expectation_is_that_of_equally_likely_classes(w, mixture):
    count, t = 12, torch.full((12,), 0.6, dtype=F64)
    x_t, y = torch.tensor([[0.3, -0.2]], dtype=F64).repeat(count, 1), torch.full((count,), 2)
    guided = begun(IndependentCondition(w)(mixture, mixture.schedule), Quantiles())(x_t, t, y)
    c = mixture(x_t[:1], t[:1], y[:1])
    classes = mixture(x_t[:3], t[:3], torch.arange(3))
    for value, own, each in zip(guided, c, classes, strict=True):
        torch.testing.assert_close(value.mean(0), w * own[0] + (1 - w) * each.mean(0), rtol=0, atol=1e-14)


def test_at_scale_1_it_is_the_conditional_model(mixture, noisy):
    x_t, t, y = noisy
    guided = begun(IndependentCondition(1.0)(mixture, mixture.schedule), SampleNoise(0, range(9)))(x_t, t, y)
    assert torch.equal(guided.x0, mixture(x_t, t, y).x0)


def labels_of(sampler, mixture, counted, indices=range(6)):
    """Return the labels of each call of the model along a walk, without those of the samples themselves."""
    model, y = counted(mixture), torch.zeros(len(indices), dtype=torch.long)
    model.num_classes = 3
    denoise = IndependentCondition(2.0)(model, mixture.schedule)
    noise, times = torch.zeros(len(indices), 2, dtype=F64), uniform_times(mixture.schedule, 4)
    *_, last = sampler(denoise, mixture.schedule, noise, times, y, SampleNoise(0, indices))
    return [call[len(indices) :] for call in model.calls], last.x


def test_the_class_is_drawn_once_a_step_and_for_each_sample(mixture, counted):
    drawn, _ = labels_of(ddim, mixture, counted)
    assert len({tuple(call) for call in drawn}) == 4
    assert {label for call in drawn for label in call} == {0, 1, 2}
    twice, _ = labels_of(heun, mixture, counted)
    assert twice == [drawn[0], drawn[0], drawn[1], drawn[1], drawn[2], drawn[2], drawn[3]]
    part, _ = labels_of(ddim, mixture, counted, [4, 1])
    assert part == [[call[4], call[1]] for call in drawn]


def test_a_sample_without_a_label_is_not_guided(mixture, noisy):
    x_t, t, y = noisy
    denoise = begun(IndependentCondition(3.0)(mixture, mixture.schedule), SampleNoise(0, range(9)))
    plain = mixture(x_t, t, None)
    assert torch.equal(denoise(x_t, t, None).x0, plain.x0)
    some = torch.where(torch.arange(9) < 4, y, -1)
    assert torch.equal(denoise(x_t, t, some).x0[4:], plain.x0[4:])


def test_all_evaluations_have_a_label(mixture):
    for scale, count in ((0.0, 5), (1.0, 5), (2.0, 10)):
        recipe = Recipe(IndependentCondition(scale), sampler=Sampler(steps=5))
        assert evaluations_per_sample(recipe, mixture.schedule) == count
        assert labels_needed(recipe, mixture.schedule) == {True}


def test_a_network_that_does_not_say_its_number_of_classes_raises(exact):
    denoise = IndependentCondition(2.0)(exact, exact.schedule)
    with pytest.raises(ValueError, match="independent condition guidance needs a network that says its number of"):
        denoise(torch.zeros(1, 2, dtype=F64), torch.ones(1, dtype=F64), torch.tensor([0]))
