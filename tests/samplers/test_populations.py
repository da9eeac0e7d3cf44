"""Populations of particles: Feynman-Kac correctors and the twisted diffusion sampler."""

from functools import partial

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance, Clip, Reconstruction
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.recipe import Inpainting, Run
from guided_diffusion.samplers import SampleNoise, Wrapped, ddpm, feynman_kac, twisted, uniform_times
from guided_diffusion.samplers.populations import Islands
from guided_diffusion.samplers.walk import Walk
from guided_diffusion.schedules import Cosine

F64 = torch.float64
SCHEDULE = Cosine()
POPULATIONS = pytest.mark.parametrize("method", [feynman_kac, twisted])


def last(steps):
    *_, step = steps
    return step


def seeded(seed):
    return partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=F64)


def gaussian(mean, variance):
    return GaussianMixture.gaussian(SCHEDULE, torch.tensor([mean], dtype=F64), torch.tensor([[variance]], dtype=F64))


def two_gaussians(x_t, t, y):
    """A model of p(x | y) = N(0.5, 0.2) and p(x) = N(0, 0.5), so that p(x) p(y|x)^2 is N(0.625, 0.125)."""
    c, u = (gaussian(*settings)(x_t, t) for settings in ((0.5, 0.2), (0.0, 0.5)))
    has_label = torch.zeros_like(x_t, dtype=torch.bool) if y is None else (y >= 0)[:, None]
    return Prediction(*(one.where(has_label, other) for one, other in zip(c, u, strict=True)))


def sample(method, denoise, steps, count, seed=0, labels=0):
    draw, times = seeded(seed), uniform_times(SCHEDULE, steps)
    return last(method(denoise, SCHEDULE, draw((count, 1)), times, torch.full((count,), labels), draw)).x


# Islands


def islands(log_weights):
    count, particles = log_weights.shape
    made = Islands(torch.zeros(count, 1, dtype=F64), particles, Walk(torch.ones(1)))
    return made, torch.arange(particles, dtype=F64).expand(count, particles)[..., None]


def test_islands_of_equal_weights_are_left_alone_and_poor_ones_resampled_in_proportion():
    log_weights = torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.75, 0.25, 1e-9, 1e-9]], dtype=F64).log().nan_to_num(0)
    log_weights[0] = 5.0
    population, numbers = islands(log_weights)
    (taken,) = population.weigh(log_weights, numbers)
    assert torch.equal(taken[0, :, 0], torch.arange(4.0, dtype=F64))
    assert taken[1, :, 0].tolist() == [0, 0, 0, 1]  # systematic: exactly in proportion
    assert population.log_weights.tolist() == [[5.0] * 4, [0.0] * 4]


def test_the_particle_that_comes_out_has_the_probability_of_its_weight():
    weights = torch.tensor([0.5, 0.3, 0.2], dtype=F64)
    population, numbers = islands(weights.log().expand(20000, 3))
    population.log_weights = weights.log().expand(20000, 3)
    shares = population.choose(numbers)[:, 0].long().bincount(minlength=3) / 20000
    assert ((shares - weights).abs() < 5 * (weights * (1 - weights) / 20000).sqrt()).all()


def test_resampling_has_the_weights_as_expectation():
    weights = torch.tensor([0.7, 0.15, 0.1, 0.05], dtype=F64)
    population, numbers = islands(weights.log().expand(20000, 4))
    (taken,) = population.weigh(weights.log().expand(20000, 4), numbers)
    shares = taken.flatten().long().bincount(minlength=4) / 80000
    assert ((shares - weights).abs() < 0.01).all()


# Feynman-Kac correctors


@pytest.mark.slow
def test_feynman_kac_samples_come_to_the_powered_gaussian_as_particles_and_steps_grow():
    guided = ClassifierFree(2.0)(two_gaussians, SCHEDULE)
    errors = {}
    for steps, particles in ((10, 8), (20, 1), (20, 8)):
        x = sample(partial(feynman_kac, particles=particles), guided, steps, 3000)
        errors[steps, particles] = abs(x.mean().item() - 0.625), abs(x.var().item() - 0.125)
    assert errors[20, 8][0] < 0.7 * errors[20, 1][0]  # more particles: about 0.044 and 0.087
    assert errors[20, 8][1] < 0.85 * errors[10, 8][1]  # more steps: about 0.054 and 0.075


@pytest.mark.parametrize("scale", [0.0, 1.0])
@pytest.mark.parametrize("particles", [1, 3])
def test_without_guidance_feynman_kac_is_ddpm_with_any_number_of_particles(scale, particles):
    guided = ClassifierFree(scale)(two_gaussians, SCHEDULE)
    method = partial(feynman_kac, particles=particles)
    x = sample(method, guided, 10, 3000)
    expected = sample(ddpm, guided, 10, 3000, seed=0 if particles == 1 else 1)
    if particles == 1:
        assert torch.equal(x, expected)
    else:
        assert abs(x.mean() - expected.mean()) < 5 * (2 * expected.var() / 3000).sqrt()
        assert abs(x.var() / expected.var() - 1) < 5 * (4 / 3000) ** 0.5


@pytest.mark.parametrize("limit", [0.2, 100.0], ids=["clipped", "not clipped"])
def test_one_particle_is_ddpm_at_any_scale(limit, mixture):
    schedule, labels, noise = mixture.schedule, torch.tensor([0, 1, 2]), torch.randn(3, 2, dtype=F64)
    guided, times = Clip(limit)(ClassifierFree(2.5)(mixture, schedule), schedule), uniform_times(schedule, 6)
    one, other = (
        last(method(guided, schedule, noise, times, labels, seeded(1))).x
        for method in (partial(feynman_kac, particles=1), ddpm)
    )
    torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


def test_the_weights_of_feynman_kac_are_the_formula_by_hand(mixture, monkeypatch):
    changes, schedule, w = [], mixture.schedule, 2.5
    weigh = Islands.weigh
    monkeypatch.setattr(Islands, "weigh", lambda self, change, *x: [changes.append(change), weigh(self, change, *x)][1])
    t, t_next = times = torch.tensor([0.6, 0.3], dtype=F64)
    x, labels = torch.randn(3, 2, dtype=F64), torch.tensor([0, 1, 2])
    last(feynman_kac(ClassifierFree(w)(mixture, schedule), schedule, x, times, labels, particles=2))
    c, u = (mixture(x, t.expand(3), y).x0 for y in (labels, None))
    (r, r_next) = (sigma / alpha for alpha, sigma in map(schedule, (t, t_next)))
    means, variance = (
        [(1 - r_next**2 / r**2) * one for one in (c, u)],
        (1 - r_next**2 / r**2) * r_next**2,
    )  # of x / alpha
    expected = w * (w - 1) * (means[0] - means[1]).square().sum(1) / (2 * variance)
    torch.testing.assert_close(changes[0], expected[:, None].expand(3, 2), rtol=1e-9, atol=0)


# Twisted diffusion sampler


def with_likelihood(scale):
    """The model N(0.3, 0.5), guided by p(y|x) in proportion to N(x; 1, 0.2)."""
    oracle = gaussian(0.3, 0.5)

    def likelihood(x0, y):
        return -((x0[:, 0] - 1) ** 2) / 0.4

    return Wrapped(oracle, lambda denoise, walk: denoise, lambda scale: oracle, scale, likelihood)


def test_twisted_samples_come_to_the_linear_gaussian_posterior_as_particles_grow():
    """With few steps too, if the prior is what ``ddpm`` makes of the model in as many."""
    prior = sample(ddpm, gaussian(0.3, 0.5), 8, 20000, seed=1)
    variance = 1 / (1 / prior.var() + 1 / 0.2)
    mean = variance * (prior.mean() / prior.var() + 1 / 0.2)
    x = {k: sample(partial(twisted, particles=k), with_likelihood(1.0), 8, 1500) for k in (1, 24)}
    error_of_mean = (variance / 1500).sqrt()
    assert abs(x[24].mean() - mean) < 4 * error_of_mean
    assert abs(x[1].mean() - mean) > 4 * error_of_mean
    assert abs(x[24].var() / variance - 1) < 4 * (2 / 1500) ** 0.5


def test_one_twisted_particle_is_reconstruction_guidance_as_the_steps_shrink(mixture):
    guided = Reconstruction(mixture.log_posterior, 1.5, clean_t=0.0)(mixture, mixture.schedule)
    noise, labels, errors = torch.randn(200, 2, dtype=F64), torch.arange(200) % 3, []
    for steps in (10, 40):
        times = uniform_times(mixture.schedule, steps)
        one, other = (
            last(method(guided, mixture.schedule, noise, times, labels, seeded(1))).x
            for method in (partial(twisted, particles=1), ddpm)
        )
        errors.append((one - other).abs().mean())
    assert errors[1] < errors[0] / 2  # 4 for the first order


@pytest.mark.parametrize(("scale", "labels"), [(0.0, 0), (1.0, -1)], ids=["no guidance", "no label"])
def test_without_guidance_or_labels_a_twisted_particle_is_ddpm_of_the_unconditional_model(scale, labels, mixture):
    guided = Reconstruction(mixture.log_posterior, scale)(mixture, mixture.schedule)
    noise, times, y = torch.randn(3, 2, dtype=F64), uniform_times(mixture.schedule, 5), torch.full((3,), labels)
    x = last(twisted(guided, mixture.schedule, noise, times, y, seeded(1), particles=1)).x
    assert torch.equal(x, last(ddpm(mixture, mixture.schedule, noise, times, None, seeded(1))).x)


def test_twisted_needs_a_likelihood(mixture):
    for guidance in (ClassifierFree(2.0), ClassifierGuidance(mixture.log_posterior, 2.0)):
        steps = twisted(guidance(mixture, mixture.schedule), mixture.schedule, torch.zeros(1, 2), torch.ones(2))
        with pytest.raises(ValueError, match="the likelihood of clean samples: reconstruction"):
            next(steps)


# Both


def guided(method, mixture, scale):
    guidance = ClassifierFree(scale) if method is feynman_kac else Reconstruction(mixture.log_posterior, scale)
    return guidance(mixture, mixture.schedule)


@POPULATIONS
@pytest.mark.parametrize("scales", [2.0, torch.tensor([0.0, 1.0, 2.0, 3.0])], ids=["number", "tensor"])
def test_an_island_depends_on_the_numbers_of_its_sample_alone(method, scales, mixture):
    labels, times = torch.tensor([0, 1, 2, 0]), uniform_times(mixture.schedule, 6)

    def drawn(rows):
        denoise = guided(method, mixture, scales if isinstance(scales, float) else scales[rows])
        draw = SampleNoise(0, rows)
        noise = draw((len(rows), 2)).double()
        return last(method(denoise, mixture.schedule, noise, times, labels[rows], draw, particles=4)).x

    whole = drawn([0, 1, 2, 3])
    assert torch.equal(drawn([0, 1, 2, 3]), whole)
    torch.testing.assert_close(torch.cat([drawn([3, 0]), drawn([2, 1])])[[1, 3, 2, 0]], whole, rtol=0, atol=1e-12)


@POPULATIONS
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_population_works_in_every_mode_and_on_images_through_a_threshold(method, mode):
    means = torch.tensor([[0.5] * 24, [-0.5] * 24])
    mixture = GaussianMixture(SCHEDULE, means, 0.1 * torch.eye(24).expand(2, 24, 24))
    with mode():
        noise, labels = torch.randn(2, 3, 2, 4), torch.tensor([0, 1])
        denoise = Clip(0.7)(guided(method, mixture, 2.0), SCHEDULE)
        steps = list(method(denoise, SCHEDULE, noise, uniform_times(SCHEDULE, 10), labels, particles=3))
    assert len(steps) == 10
    assert all(step.x.shape == step.x0.shape == noise.shape and step.x.isfinite().all() for step in steps)
    assert steps[-1].x.abs().max() <= 0.7
    assert steps[-1].x.dtype == torch.float32
    assert torch.equal(steps[-1].x.mean((1, 2, 3)) > 0, torch.tensor([True, False]))


@POPULATIONS
def test_a_population_keeps_the_known_values_of_inpainting(method, mixture):
    noise, times = torch.randn(3, 2, dtype=F64), uniform_times(mixture.schedule, 5)
    given, unknown = torch.full((3, 2), 0.4, dtype=F64), torch.tensor([[True, False]] * 3)
    run = Inpainting(given, unknown)(Run(guided(method, mixture, 2.0), noise, times), mixture.schedule)
    x = last(method(run.denoise, mixture.schedule, run.x, run.times, torch.arange(3), particles=3)).x
    assert torch.equal(x[:, 1], given[:, 1])
    assert not torch.isclose(x[:, 0], given[:, 0]).any()


@POPULATIONS
def test_fewer_than_one_particle_raises(method, mixture):
    with pytest.raises(ValueError, match="particles must be at least 1, got 0"):
        next(method(mixture, mixture.schedule, torch.zeros(1, 2), torch.ones(2), particles=0))
