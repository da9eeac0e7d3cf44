import math
from itertools import pairwise

import pytest
import torch

from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import CFGPlusPlus
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, ddim, ddpm, heun, log_snr_times, uniform_times
from guided_diffusion.schedules import Cosine

F64 = torch.float64
GRIDS = [uniform_times, lambda schedule, steps: log_snr_times(schedule, steps, 6.0)]


def pair_form(denoise, schedule, x, times, labels, strength):
    """Sample as the authors do: x0 of both predictions, and the noise of the unconditional one alone."""
    for t, t_next in pairwise(times):
        (alpha_next, sigma_next), now = schedule(t_next), t.expand(len(x))
        c, u = denoise(x, now, labels), denoise(x, now, None)
        x = alpha_next * (u.x0 + strength * (c.x0 - u.x0)) + sigma_next * u.eps
    return x


@pytest.mark.parametrize("grid", GRIDS, ids=["uniform", "log_snr"])
@pytest.mark.parametrize("steps", [1, 12])
@pytest.mark.parametrize("strength", [0.0, 0.2, 1.0, torch.tensor([0.0, 0.3, 0.6, 1.0])])
def test_with_ddim_it_is_the_form_of_the_authors(grid, steps, strength, mixture):
    schedule, noise, labels = mixture.schedule, torch.randn(4, 2, dtype=F64), torch.tensor([0, 1, 2, 0])
    times = grid(schedule, steps).to(F64)
    *_, last = ddim(CFGPlusPlus(strength)(mixture, schedule), schedule, noise, times, labels)
    column = torch.as_tensor(strength, dtype=F64).reshape(-1, 1)
    expected = pair_form(mixture, schedule, noise, times, labels, column)
    torch.testing.assert_close(last.x, expected, rtol=0, atol=1e-12)


def test_along_rising_times_it_is_the_form_of_the_authors(mixture):
    schedule, x, labels = mixture.schedule, torch.randn(3, 2, dtype=F64) / 2, torch.tensor([0, 1, 2])
    times = uniform_times(schedule, 8).flip(0)[1:]
    *_, last = ddim(CFGPlusPlus(0.6)(mixture, schedule), schedule, x, times, labels)
    torch.testing.assert_close(last.x, pair_form(mixture, schedule, x, times, labels, 0.6), rtol=0, atol=1e-12)


@pytest.mark.parametrize("sampler", [ddpm, heun])
def test_it_keeps_the_state_and_a_strength_of_zero_is_the_unconditional_model(sampler, mixture):
    schedule, noise, times = mixture.schedule, torch.randn(3, 2, dtype=F64), uniform_times(mixture.schedule, 4)
    labels = torch.tensor([0, 1, 2])
    torch.manual_seed(1)
    guided = [step.x for step in sampler(CFGPlusPlus(0.0)(mixture, schedule), schedule, noise, times, labels)]
    torch.manual_seed(1)
    plain = [step.x for step in sampler(mixture, schedule, noise, times, None)]
    assert torch.equal(torch.stack(guided), torch.stack(plain))


def test_it_guides_more_in_smaller_steps(mixture):
    """The weight, read from the first step, is ``lambda / (1 - exp(-h))``."""
    schedule, noise, labels = mixture.schedule, torch.randn(3, 2, dtype=F64), torch.tensor([0, 1, 2])
    weights = []
    for t_next in (0.4, 0.49):
        times = torch.tensor([0.5, t_next], dtype=F64)
        first = next(ddim(CFGPlusPlus(0.5)(mixture, schedule), schedule, noise, times, labels))
        c, u = (mixture(noise, times[0].expand(3), y).x0 for y in (labels, None))
        weights.append(((first.x0 - u) / (c - u)).mean().item())
        h = schedule.log_snr(times).diff().item() / 2
        assert weights[-1] == pytest.approx(0.5 / (1 - math.exp(-h)), rel=1e-9)
    assert weights[1] > 5 * weights[0]


def test_unguided_it_is_the_conditional_model(mixture, noisy):
    assert torch.equal(CFGPlusPlus(0.5).unguided()(mixture, mixture.schedule)(*noisy).x0, mixture(*noisy).x0)


def test_outside_of_a_sampler_it_raises(mixture, noisy):
    with pytest.raises(ValueError, match=r"call begin\(denoise, walk\)"):
        CFGPlusPlus(0.5)(mixture, mixture.schedule)(*noisy)


@pytest.mark.parametrize(("strength", "evaluations"), [(0.0, 5), (0.6, 10), (1.0, 10)])
def test_the_evaluations_are_those_counted(strength, evaluations, mixture, counted):
    schedule, model = Cosine(), counted(mixture)
    list(
        ddim(
            CFGPlusPlus(strength)(model, schedule),
            schedule,
            torch.zeros(1, 2),
            uniform_times(schedule, 5),
            torch.tensor([0]),
        )
    )
    assert sum(map(len, model.calls)) == evaluations
    assert evaluations_per_sample(Recipe(CFGPlusPlus(strength), sampler=Sampler(steps=5)), schedule) == evaluations
