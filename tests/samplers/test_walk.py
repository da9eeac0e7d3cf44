"""A guided denoiser that follows the walk of a sampler: its state, its noise and the time of its evaluations."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from guided_diffusion.denoisers import Prediction
from guided_diffusion.evaluation.chunks import Watched
from guided_diffusion.guidance import ClassifierFree, Clip, DynamicThreshold, LimitedInterval, NoThreshold, along_walk
from guided_diffusion.recipe import Inpainting, Run
from guided_diffusion.samplers import (
    OncePerStep,
    SampleNoise,
    Walk,
    at_scale,
    begin,
    ddim,
    ddpm,
    dpmpp_2m,
    heun,
    scale_of,
    sde_dpmpp_2m,
    uniform_times,
)
from guided_diffusion.schedules import Cosine

SCHEDULE = Cosine()
TIMES = uniform_times(SCHEDULE, 4)
SAMPLERS = [ddim, ddpm, dpmpp_2m, sde_dpmpp_2m, heun]


def zeros(x_t, t, y):
    return Prediction(torch.zeros_like(x_t), x_t.clone())


def walked(sampler, denoise, noise, times=TIMES, draw=torch.randn):
    *_, last = sampler(denoise, SCHEDULE, noise, times, None, draw)
    return last.x


@dataclass(frozen=True)
class Counting:
    """A guidance that notes the step, the value that it carries and the time of every evaluation."""

    seen: list

    @along_walk
    def __call__(self, denoise, schedule, walk):
        count = OncePerStep(walk)

        def guided(x_t: Tensor, t: Tensor, y) -> Prediction:
            number = count(lambda before: 1 if before is None else before + 1)
            self.seen.append((walk.step, number, walk.t.item(), t[0].item()))
            return denoise(x_t, t, y)

        return guided


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_state_moves_once_a_step_and_every_walk_begins_anew(sampler):
    guidance = Counting([])
    denoise = guidance(zeros, SCHEDULE)
    for _ in range(2):
        guidance.seen.clear()
        walked(sampler, denoise, torch.zeros(2, 3))
        assert all(number == step + 1 for step, number, *_ in guidance.seen)
        assert [step for step, *_ in guidance.seen] == ([0, 0, 1, 1, 2, 2, 3] if sampler is heun else [0, 1, 2, 3])
        assert all(time == t for *_, time, t in guidance.seen)


def test_two_walks_of_one_denoiser_may_alternate():
    guidance = Counting([])
    denoise = guidance(zeros, SCHEDULE)
    one, other = (ddim(denoise, SCHEDULE, torch.zeros(1, 2), TIMES) for _ in range(2))
    assert len(list(zip(one, other, strict=True))) == 4
    assert [(step, number) for step, number, *_ in guidance.seen] == [(k // 2, k // 2 + 1) for k in range(8)]


def inpainting(denoise, schedule):
    run = Run(denoise, torch.zeros(2, 3), TIMES)
    return Inpainting(torch.zeros(2, 3), torch.ones(2, 3, dtype=torch.bool))(run, schedule).denoise


@pytest.mark.parametrize(
    "wrapper",
    [Clip(), DynamicThreshold(), Watched(Clip(), lambda prediction: None), ClassifierFree(1.0), inpainting],
    ids=["clip", "dynamic", "watched", "cfg", "inpainting"],
)
def test_a_wrapper_passes_the_walk_on(wrapper):
    guidance = Counting([])
    walked(ddim, wrapper(guidance(zeros, SCHEDULE), SCHEDULE), torch.zeros(2, 3))
    assert [(step, number) for step, number, *_ in guidance.seen] == [(0, 1), (1, 2), (2, 3), (3, 4)]


def test_a_denoiser_that_remembers_can_not_be_called_without_a_walk():
    denoise = Counting([])(zeros, SCHEDULE)
    with pytest.raises(ValueError, match=r"call begin\(denoise, walk\)"):
        denoise(torch.zeros(1, 2), torch.ones(1), None)
    with pytest.raises(ValueError, match=r"call begin\(denoise, walk\)"):
        begin(denoise, Walk(TIMES))(torch.zeros(1, 2), torch.ones(1), None)


def test_a_plain_denoiser_is_returned_as_it_is():
    assert begin(zeros, Walk(TIMES)) is zeros


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_an_interval_in_a_walk_is_that_of_single_evaluations(sampler, mixture):
    """The bounds are at times of the grid, where a rounding error would show."""
    schedule = mixture.schedule
    lower, upper = ((-schedule.log_snr(TIMES[k].float().double()) / 2).exp().item() for k in (3, 1))
    denoise = LimitedInterval(3.0, lower, upper)(mixture, schedule)
    noise, labels = torch.randn(4, *mixture.means.shape[1:], dtype=torch.float64), torch.tensor([0, 1, 2, 0])

    def alone(x_t, t, y):
        return denoise(x_t, t, y)

    one, other = (
        [step.x for step in sampler(each, schedule, noise, TIMES, labels, SampleNoise(0, range(4)))]
        for each in (denoise, alone)
    )
    assert torch.equal(torch.stack(one), torch.stack(other))


@dataclass(frozen=True)
class Drawing:
    """A guidance that draws noise of its own and keeps it in ``drawn``."""

    drawn: list
    name: str = "test"

    @along_walk
    def __call__(self, denoise, schedule, walk):
        draw, noise = walk.noise(self.name), OncePerStep(walk)

        def guided(x_t, t, y):
            self.drawn.append(noise(lambda _: draw(x_t.shape)))
            return denoise(x_t, t, y)

        return guided


@pytest.mark.parametrize("draw", [lambda: SampleNoise(3, range(4)), lambda: torch.randn], ids=["seeded", "torch"])
def test_noise_of_a_guidance_leaves_that_of_the_sampler_as_it_is(draw):
    noise = torch.randn(4, 2)
    torch.manual_seed(1)
    alone = walked(ddpm, zeros, noise, draw=draw())
    torch.manual_seed(1)
    drawn = []
    assert torch.equal(walked(ddpm, Drawing(drawn)(zeros, SCHEDULE), noise, draw=draw()), alone)
    torch.manual_seed(1)
    again = []
    walked(ddim, Drawing(again)(zeros, SCHEDULE), noise, draw=draw())
    assert torch.equal(torch.stack(drawn), torch.stack(again))
    assert len({tuple(row.tolist()) for each in drawn for row in each}) == 16  # new in every step, for every sample


def test_noise_of_a_guidance_depends_on_seed_index_and_name_alone():
    def drawn(seed, indices, name):
        values = []
        walked(
            ddpm, Drawing(values, name)(zeros, SCHEDULE), torch.zeros(len(indices), 2), draw=SampleNoise(seed, indices)
        )
        return torch.stack(values, 1)

    whole = drawn(0, range(6), "a")
    assert torch.equal(drawn(0, [4, 1], "a"), whole[[4, 1]])
    for other in (drawn(1, range(6), "a"), drawn(0, range(6), "b")):
        assert not torch.isin(other, whole).any()


@pytest.mark.parametrize("threshold", [NoThreshold(), Clip(0.3), Watched(Clip(), lambda prediction: None)])
def test_a_guided_denoiser_is_had_at_another_scale_through_its_wrappers(threshold, mixture):
    schedule, t, y = mixture.schedule, torch.full((3,), 0.4, dtype=torch.float64), torch.tensor([0, 1, 2])
    x = torch.randn(3, *mixture.means.shape[1:], dtype=torch.float64)
    guided, other = (threshold(ClassifierFree(scale)(mixture, schedule), schedule) for scale in (3.0, 1.5))
    assert scale_of(guided) == 3.0
    for one, two in zip(at_scale(guided, 1.5)(x, t, y), other(x, t, y), strict=True):
        assert torch.equal(one, two)


def test_a_denoiser_without_guidance_has_no_scale():
    for denoise in (zeros, Clip()(zeros, SCHEDULE)):
        with pytest.raises(ValueError, match="needs a guided denoiser"):
            scale_of(denoise)
