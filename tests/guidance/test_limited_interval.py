import math

import pytest
import torch

from guided_diffusion.guidance import ClassifierFree, Guidance, LimitedInterval
from guided_diffusion.guidance.base import in_interval
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, Walk
from guided_diffusion.schedules import Cosine, LinearBeta

F64 = torch.float64


def ratio(schedule, t):
    alpha, sigma = schedule(t)
    return sigma / alpha


def test_it_is_classifier_free_guidance_inside_and_the_conditional_model_outside(mixture, noisy):
    x_t, t, y = noisy
    noise = ratio(mixture.schedule, t)
    low, high = noise.quantile(0.3).item(), noise.quantile(0.7).item()
    inside = (low < noise) & (noise <= high)
    assert 0 < inside.sum() < len(t)
    scale = torch.linspace(-1, 4, len(t), dtype=F64)
    for w in (3.0, scale):
        guided = LimitedInterval(w, low, high)(mixture, mixture.schedule)(x_t, t, y)
        free = ClassifierFree(w)(mixture, mixture.schedule)(x_t, t, y)
        plain = mixture(x_t, t, y)
        for one, within, without in zip(guided, free, plain, strict=True):
            assert torch.equal(one[inside], within[inside])
            torch.testing.assert_close(one[~inside], without[~inside], rtol=0, atol=1e-12)


def test_the_upper_end_belongs_to_the_interval_and_the_lower_one_does_not(mixture):
    schedule, x_t, y = Cosine(), torch.zeros(1, 2, dtype=F64), torch.tensor([0])
    t = torch.tensor([0.5], dtype=F64)
    at = (-schedule.log_snr(t) / 2).exp().item()
    asked = []

    def denoise(x_t, t, y):
        asked.append(len(x_t))
        return mixture(x_t, t, y)

    for low, high, evaluations in ((at, 9.0, 1), (0.0, at, 2)):
        LimitedInterval(2.0, low, high)(denoise, schedule)(x_t, t, y)
        assert asked.pop() == evaluations


@pytest.mark.parametrize("level", [0.5, 1.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize("schedule", [Cosine(), LinearBeta()], ids=str)
def test_rounded_times_at_an_end_count_as_the_end(level, schedule):
    t = schedule.time(torch.tensor([-2 * math.log(level)], dtype=F64))
    for rounded in (t, t.float()):
        walk = Walk(rounded.double())
        assert in_interval(walk, schedule, level / 2, level)
        assert not in_interval(walk, schedule, level, 2 * level)


def test_an_interval_of_all_noise_levels_is_classifier_free_guidance(mixture, noisy):
    every = LimitedInterval(3.0, 0.0, float("inf"))(mixture, mixture.schedule)(*noisy)
    free = ClassifierFree(3.0)(mixture, mixture.schedule)(*noisy)
    assert torch.equal(every.x0, free.x0)
    assert torch.equal(every.eps, free.eps)


def test_without_labels_it_is_the_unconditional_model(mixture, noisy):
    x_t, t, _ = noisy
    assert torch.equal(LimitedInterval(3.0)(mixture, mixture.schedule)(x_t, t, None).x0, mixture(x_t, t, None).x0)


def test_unguided_is_the_conditional_model_at_every_noise_level(mixture, noisy):
    guidance = LimitedInterval(3.0)
    assert isinstance(guidance, Guidance)
    plain, unguided = mixture(*noisy), guidance.unguided()(mixture, mixture.schedule)(*noisy)
    torch.testing.assert_close(unguided.x0, plain.x0, rtol=0, atol=1e-12)


def test_outside_the_interval_it_needs_one_evaluation_instead_of_two(network):
    from guided_diffusion.evaluation.cost import evaluations_per_sample

    schedule, sampler = Cosine(), Sampler(steps=10)
    times = sampler.times(schedule, 10)[:-1]
    noise = (-schedule.log_snr(times.double()) / 2).exp()
    inside = int(((noise > 0.5) & (noise <= 2)).sum())
    assert 0 < inside < 10
    assert evaluations_per_sample(Recipe(LimitedInterval(2.0, 0.5, 2.0), sampler=sampler), schedule) == 10 + inside


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (-0.1, 1.0), (float("nan"), 1.0)])
def test_an_invalid_interval_raises(low, high):
    with pytest.raises(ValueError, match="0 <= sigma_lo < sigma_hi must hold"):
        LimitedInterval(2.0, low, high)


def test_a_scale_that_is_not_finite_raises():
    with pytest.raises(ValueError, match="scale must be finite"):
        LimitedInterval(float("nan"))
