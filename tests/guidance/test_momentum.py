import math
from dataclasses import replace

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import ClassifierFree, MomentumGuidance
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, Walk, begin, ddim, heun, uniform_times
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
SCHEDULE = Cosine()


@pytest.fixture
def schedule():
    """One schedule is enough here."""
    return Cosine()


EVERYWHERE = {"sigma_lo": 0.0, "sigma_hi": math.inf}


def velocity(prediction):
    return prediction.eps - prediction.x0


def samples(guidance, denoise, noise, y, sampler=heun, steps=3):
    path = sampler(guidance(denoise, SCHEDULE), SCHEDULE, noise, uniform_times(SCHEDULE, steps), y)
    return torch.stack([step.x for step in path])


def test_three_steps_by_hand(mixture, noisy):
    """``m_0 = f_0``, ``m_1 = f_0`` and ``m_2 = .4 f_1 + .6 f_0``; a second evaluation reads m and does not move it."""
    x_t, t, y = noisy
    guidance = MomentumGuidance(3.0, 0.5, 0.6, **EVERYWHERE)
    walk, free = Walk(torch.linspace(1, 0, 4, dtype=F64)), ClassifierFree(3.0)(mixture, mixture.schedule)
    denoise = begin(guidance(mixture, mixture.schedule), walk)
    f = [velocity(free(x_t + step, t, y)) for step in range(3)]
    averages = [f[0], f[0], 0.4 * f[1] + 0.6 * f[0]]
    for step, _ in enumerate(walk):
        for x in (x_t + step, x_t - 7):
            walk.t, at_x = t, velocity(free(x, t, y))
            guided = denoise(x, t, y)
            torch.testing.assert_close(velocity(guided), at_x + 0.5 * (at_x - averages[step]), rtol=0, atol=1e-12)
            torch.testing.assert_close(perturb(*guided, t, mixture.schedule), x, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", [ddim, heun])
def test_a_constant_velocity_stays_as_it_is(sampler):
    def denoise(x_t, t, y):
        f = torch.tensor([1.0, -2.0], dtype=F64).expand_as(x_t)
        alpha, sigma = (value[:, None] for value in SCHEDULE(t))
        x0 = (x_t - sigma * f) / (alpha + sigma)
        return Prediction(x0, x0 + f)

    noise, y = torch.randn(3, 2, dtype=F64), torch.tensor([0, 1, 2])
    guided, free = (samples(each, denoise, noise, y, sampler) for each in (MomentumGuidance(2.0), ClassifierFree(2.0)))
    torch.testing.assert_close(guided, free, rtol=0, atol=1e-9)


def test_neutral_settings_are_classifier_free_guidance_bit_for_bit(mixture):
    w = torch.tensor([0.0, 1.0, 3.0])
    noise, y = torch.randn(3, 2, dtype=F64), torch.tensor([0, 1, 2])
    neutral = replace(MomentumGuidance(w), **MomentumGuidance.as_classifier_free)
    assert torch.equal(*(samples(each, mixture, noise, y) for each in (neutral, ClassifierFree(w))))
    unguided = MomentumGuidance(w).unguided()
    assert torch.equal(*(samples(each, mixture, noise, y) for each in (unguided, ClassifierFree(1.0))))


def test_outside_of_its_interval_it_is_classifier_free_guidance(mixture):
    """The interval holds the times of steps 2 and 3 of 5; the average has moved before."""
    noise, y, times = torch.randn(3, 2, dtype=F64), torch.tensor([0, 1, 2]), uniform_times(SCHEDULE, 5)
    lower, upper = ((-SCHEDULE.log_snr(times[k]) / 2).exp().item() * 1.001 for k in (4, 2))
    inside = MomentumGuidance(2.0, sigma_lo=lower, sigma_hi=upper)
    changed = samples(inside, mixture, noise, y, ddim, 5) != samples(ClassifierFree(2.0), mixture, noise, y, ddim, 5)
    assert changed.flatten(1).any(1).tolist() == [False, False, True, True, True]


def test_two_runs_are_the_same_and_a_sample_does_not_depend_on_the_others(mixture):
    noise, y, w = torch.randn(4, 2, dtype=F64), torch.tensor([0, 1, 2, 0]), torch.tensor([2.0, 3.0, 0.0, 1.0])
    together = samples(MomentumGuidance(w), mixture, noise, y)
    assert torch.equal(samples(MomentumGuidance(w), mixture, noise, y), together)
    part = samples(MomentumGuidance(w[[3, 1]]), mixture, noise[[3, 1]], y[[3, 1]])
    torch.testing.assert_close(part, together[:, [3, 1]], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("w", "evaluations"), [(0.0, 5), (1.0, 5), (3.0, 10)])
def test_it_takes_the_evaluations_of_classifier_free_guidance(w, evaluations):
    assert evaluations_per_sample(Recipe(MomentumGuidance(w), sampler=Sampler(steps=5)), SCHEDULE) == evaluations


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"strength": math.nan}, "strength must be finite, got nan"),
        ({"decay": 1.0}, r"decay must be in \[0, 1\), got 1.0"),
        ({"sigma_lo": 20.0}, "0 <= sigma_lo < sigma_hi must hold"),
    ],
)
def test_an_invalid_setting_raises(setting, message):
    with pytest.raises(ValueError, match=message):
        MomentumGuidance(**setting)
