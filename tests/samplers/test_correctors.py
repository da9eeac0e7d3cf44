"""Predictor-corrector guidance and Gibbs-like guidance."""

from functools import partial

import pytest
import torch

from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance, Clip
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.oracles.powered_mixture import PoweredMixture
from guided_diffusion.samplers import SampleNoise, ddim, gibbs, heun, pcg, uniform_times
from guided_diffusion.schedules import Cosine

F64 = torch.float64
SCHEDULE = Cosine()


def last(steps):
    *_, step = steps
    return step


def two_gaussians(offset=0.5, variance=0.25):
    """Two classes of equal weight, whose means are ``offset`` to both sides of 0, and the same variance."""
    means = torch.tensor([[offset], [-offset]], dtype=F64)
    return GaussianMixture(SCHEDULE, means, torch.full((2, 1, 1), variance, dtype=F64))


@pytest.mark.parametrize(("method", "plain"), [(partial(pcg, corrections=0), ddim), (partial(gibbs, rounds=0), heun)])
@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_without_corrections_the_samples_are_those_of_the_conditional_model(method, plain, scale, mixture):
    schedule, noise, labels = mixture.schedule, torch.randn(5, 2, dtype=F64), torch.tensor([0, 1, 2, 0, 1])
    times = uniform_times(schedule, 8)
    guided = last(method(ClassifierFree(scale)(mixture, schedule), schedule, noise, times, labels)).x
    assert torch.equal(guided, last(plain(mixture, schedule, noise, times, labels)).x)


@pytest.mark.parametrize("method", [partial(pcg, corrections=2, g=1.0), partial(pcg, corrections=2), gibbs])
def test_at_a_scale_of_one_the_corrections_keep_the_conditional_distribution(method, generator):
    oracle, labels = two_gaussians(), torch.zeros(4000, dtype=torch.long)
    draw = partial(torch.randn, generator=generator, dtype=F64)
    x = last(
        method(
            ClassifierFree(1.0)(oracle, SCHEDULE), SCHEDULE, draw((4000, 1)), uniform_times(SCHEDULE, 30), labels, draw
        )
    ).x
    assert abs(x.mean() - 0.5) < 5 * 0.5 / 4000**0.5 + 0.01
    assert abs(x.var() / 0.25 - 1) < 5 * (2 / 4000) ** 0.5 + 0.03


def test_a_correction_is_the_formula_by_hand(mixture):
    schedule, g, labels = mixture.schedule, 2.5, torch.tensor([0, 1, 2])
    t, t_next = times = torch.tensor([0.7, 0.4], dtype=F64)
    x, drawn = torch.randn(3, 2, dtype=F64), torch.randn(3, 2, dtype=F64)
    (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
    denoise = ClassifierFree(2.0)(mixture, schedule)
    step = last(pcg(denoise, schedule, x, times, labels, lambda shape: drawn, g=g))
    x0, eps = mixture(x, t.expand(3), labels)
    x = alpha_next * x0 + sigma_next * eps
    scores = [
        (alpha_next * mixture(x, t_next.expand(3), y).x0 - x) / sigma_next**2 for y in (labels, None)
    ]  # of p(x | y) and of p(x)
    size = (sigma_next / sigma) ** 2 * (sigma**2 - (alpha / alpha_next) ** 2 * sigma_next**2)
    expected = x + size / 2 * (g * scores[0] + (1 - g) * scores[1]) + size.sqrt() * drawn
    torch.testing.assert_close(step.x, expected, rtol=1e-10, atol=1e-10)


def test_the_size_of_a_correction_tends_to_that_of_the_authors():
    """Their g_t^2 dt is the decrease of log alpha^2 in a step towards the noise."""
    denoise = ClassifierFree(1.0)(two_gaussians(0.0, 1.0), SCHEDULE)
    x, errors = torch.zeros(1, 1, dtype=F64), []
    for steps in (50, 100):
        times = torch.tensor([0.6, 0.6 - 1 / steps], dtype=F64)
        moved, kept = (last(pcg(denoise, SCHEDULE, x, times, None, draw)).x for draw in (torch.ones, torch.zeros))
        increase = 2 * SCHEDULE(times)[0].log().diff()  # of log alpha^2, towards the data
        errors.append(((moved - kept) ** 2 / increase - 1).abs().item())
    assert errors[1] < 0.6 * errors[0] < 0.06


def test_many_corrections_make_the_spread_that_of_the_powered_density():
    means = torch.tensor([[0.3, 0.0], [-0.3, 0.0]], dtype=F64)
    oracle = GaussianMixture(SCHEDULE, means, torch.diag(torch.tensor([0.09, 0.04], dtype=F64)).expand(2, 2, 2))
    guided, labels = ClassifierFree(2.0)(oracle, SCHEDULE), torch.zeros(2000).long()
    target = PoweredMixture(oracle, 2.0).sample(torch.zeros(20000).long(), torch.Generator().manual_seed(2))
    errors = {}
    for name, method in {"flow": ddim, "1": pcg, "3": partial(pcg, corrections=3, g=2.0)}.items():
        draw = partial(torch.randn, generator=torch.Generator().manual_seed(1), dtype=F64)
        x = last(method(guided, SCHEDULE, draw((2000, 2)), uniform_times(SCHEDULE, 20), labels, draw)).x
        errors[name] = (x.std(0) / target.std(0) - 1).abs().max().item()
    assert errors["3"] < 0.08
    assert errors["3"] < errors["1"] < errors["flow"]


@pytest.mark.parametrize("method", [pcg, gibbs])
@pytest.mark.parametrize("scales", [2.0, torch.tensor([0.0, 1.0, 2.0, 3.0])], ids=["number", "tensor"])
def test_a_sample_depends_neither_on_its_batch_nor_on_classifier_or_classifier_free(method, scales, mixture):
    schedule, labels, times = mixture.schedule, torch.tensor([0, 1, 2, 0]), uniform_times(mixture.schedule, 6)

    def sample(rows, guidance=ClassifierFree):
        w = scales if isinstance(scales, float) else scales[rows]
        denoise = guidance(w)(mixture, schedule)
        draw = SampleNoise(0, rows)
        return last(method(denoise, schedule, draw((len(rows), 2)).double(), times, labels[rows], draw)).x

    whole = sample([0, 1, 2, 3])
    assert torch.equal(torch.cat([sample([0, 3]), sample([1, 2])])[[0, 2, 3, 1]], whole)
    by_classifier = sample([0, 1, 2, 3], lambda w: ClassifierGuidance(mixture.log_posterior, w))
    torch.testing.assert_close(by_classifier, whole, rtol=1e-9, atol=1e-9)


def test_gibbs_noises_to_the_level_and_reuses_the_grid_below_it(mixture):
    schedule, times = mixture.schedule, uniform_times(mixture.schedule, 8)
    level = (-schedule.log_snr(torch.tensor(0.3, dtype=F64)) / 2).exp().item()
    denoise, noise = ClassifierFree(2.0)(mixture, schedule), torch.randn(2, 2, dtype=F64)
    steps = list(gibbs(denoise, schedule, noise, times, rounds=2, noise_level=level))
    assert torch.equal(torch.stack([step.t for step in steps]), torch.cat([times[1:], times[6:], times[6:]]))
    high = list(gibbs(denoise, schedule, noise, times[6:], rounds=1, noise_level=100.0))
    assert [step.t.item() for step in high] == [0.125, 0, 0.125, 0]


@pytest.mark.parametrize(("setting", "number"), [(None, 3.0), ("w", 2.0)])
def test_the_exponent_of_the_corrections_follows_the_scale(setting, number, mixture):
    denoise, times = ClassifierFree(2.0)(mixture, mixture.schedule), uniform_times(mixture.schedule, 5)
    noise, labels = torch.randn(3, 2, dtype=F64), torch.arange(3)
    draw = SampleNoise(0, range(3))
    steps = (pcg(denoise, mixture.schedule, noise, times, labels, draw.named("g"), g=g) for g in (setting, number))
    assert torch.equal(*(last(one).x for one in steps))


@pytest.mark.parametrize("method", [pcg, gibbs])
def test_a_threshold_stays_around_the_guided_denoiser(method, mixture):
    denoise = Clip(0.2)(ClassifierFree(2.0)(mixture, mixture.schedule), mixture.schedule)
    steps = method(
        denoise, mixture.schedule, torch.randn(3, 2, dtype=F64), uniform_times(mixture.schedule, 5), torch.arange(3)
    )
    assert last(steps).x.abs().max() <= 0.2


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (partial(pcg, corrections=-1), "corrections must be at least 0, got -1"),
        (partial(pcg, g="v"), "g must be w, a number or null, got v"),
        (partial(gibbs, rounds=-1), "rounds must be at least 0, got -1"),
        (partial(gibbs, noise_level=0.0), "noise_level must be positive and finite, got 0.0"),
    ],
)
def test_a_setting_out_of_range_raises(method, message, mixture):
    denoise = ClassifierFree(2.0)(mixture, mixture.schedule)
    with pytest.raises(ValueError, match=message):
        next(method(denoise, mixture.schedule, torch.zeros(1, 2), uniform_times(mixture.schedule, 2)))


@pytest.mark.parametrize("method", [pcg, gibbs])
def test_a_plain_denoiser_raises(method, mixture):
    with pytest.raises(ValueError, match="needs a guided denoiser"):
        next(method(mixture, mixture.schedule, torch.zeros(1, 2), uniform_times(mixture.schedule, 2)))
