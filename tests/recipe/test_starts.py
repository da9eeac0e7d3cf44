from dataclasses import replace
from functools import partial

import pytest
import torch

from guided_diffusion.guidance import ClassifierFree, NoThreshold
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.recipe import FromNoise, ImageToImage, Inpainting, Inversion, Recipe, Run
from guided_diffusion.samplers import Sampler, ddim, ddpm, dpmpp_2m, heun, sde_dpmpp_2m, uniform_times
from guided_diffusion.schedules import perturb

F64 = torch.float64
METHODS = [ddpm, ddim, partial(ddim, eta=0.5), heun, dpmpp_2m, sde_dpmpp_2m]
NAMES = ["ddpm", "ddim", "ddim eta=0.5", "heun", "dpmpp_2m", "sde_dpmpp_2m"]
every_method = pytest.mark.parametrize("method", METHODS, ids=NAMES)
labels = torch.tensor([0, 1, 2, 0, 1])
given = torch.tensor([[0.5, 0.4], [-0.5, 0.6], [0.1, -0.4], [0.4, 0.5], [-0.4, 0.4]])
unknown = torch.tensor([[True, False]]).expand(5, 2)


def recipe(method=ddim, batch_size=500, steps=6):
    return Recipe(ClassifierFree(2.0), NoThreshold(), Sampler(method, steps=steps), batch_size)


def sample(exact, method=ddim, start=None, **settings):
    return recipe(method, **settings).sample(exact, labels, (2,), seed=3, start=start)


@pytest.fixture
def run(mixture):
    """A run of the exact denoiser from pure noise in float64."""
    return Run(mixture, torch.randn(5, 2, dtype=F64), uniform_times(mixture.schedule, 10))


# Image to image


def test_image_to_image_starts_from_the_samples_noised_to_its_strength(run, mixture):
    x = ImageToImage(given, 0.55)(run, mixture.schedule)
    alpha, sigma = mixture.schedule(torch.tensor(0.55, dtype=F64))
    torch.testing.assert_close(x.x, alpha * given.to(F64) + sigma * run.x, rtol=0, atol=1e-12)
    torch.testing.assert_close(x.times, torch.tensor([0.55, 0.5, 0.4, 0.3, 0.2, 0.1, 0], dtype=F64))


@pytest.mark.one_schedule
@every_method
def test_a_weak_change_stays_close_to_the_given_samples(method, exact):
    weak, strong = (
        (sample(exact, method, ImageToImage(given, strength)) - given).abs().mean() for strength in (0.05, 0.9)
    )
    assert weak < 0.15 < strong


def test_strength_one_is_sampling_from_pure_noise_to_the_bit(exact):
    assert torch.equal(sample(exact, start=ImageToImage(given, 1.0)), sample(exact))


@pytest.mark.parametrize("strength", [0.0, -1.0, 1.01, float("nan")])
@pytest.mark.parametrize("start", [ImageToImage, lambda samples, s: Inpainting(samples, unknown, s)])
def test_a_strength_outside_0_to_1_is_refused(start, strength):
    with pytest.raises(ValueError, match=r"strength must be in \(0, 1\], got"):
        start(given, strength)


# Inpainting


@pytest.mark.one_schedule
@every_method
@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_the_known_values_are_kept_to_the_bit_by_every_sampler(method, strength, exact):
    samples = sample(exact, method, Inpainting(given, unknown, strength))
    assert torch.equal(samples[:, 1], given[:, 1])
    assert (samples[:, 0] != given[:, 0]).all()
    assert samples.isfinite().all()


@every_method
def test_the_denoiser_sees_the_known_values_at_each_level_of_noise(method, run, mixture):
    seen = []

    def denoise(x_t, t, y):
        seen.append((x_t, t))
        return mixture(x_t, t, y)

    schedule = mixture.schedule
    started = Inpainting(given, unknown)(run._replace(denoise=denoise), schedule)
    generator = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=generator, dtype=F64)
    for _ in method(started.denoise, schedule, started.x, started.times, labels, draw):
        pass
    assert len(seen) >= 10
    for x_t, t in seen:
        torch.testing.assert_close(x_t[:, 1], perturb(given.to(F64), run.x, t, schedule)[:, 1], rtol=0, atol=1e-12)


@pytest.mark.one_schedule
@every_method
def test_if_all_is_unknown_it_is_plain_sampling(method, exact):
    everything = torch.ones(5, 2, dtype=torch.bool)
    assert torch.equal(sample(exact, method, Inpainting(given, everything)), sample(exact, method))


@pytest.mark.parametrize("method", [ddim, dpmpp_2m, heun])
def test_known_values_that_say_nothing_of_the_unknown_ones_change_nothing(method, schedule):
    """Where the second coordinate says nothing about the first, knowing it changes nothing."""
    independent = GaussianMixture.gaussian(schedule, torch.tensor([1.0, -2.0], dtype=F64), torch.eye(2, dtype=F64) / 4)
    run = Run(independent, torch.randn(5, 2, dtype=F64), uniform_times(schedule, 20))
    painted = Inpainting(given, unknown)(run, schedule)
    first, second = ([step.x for step in method(one.denoise, schedule, one.x, one.times)][-1] for one in (run, painted))
    torch.testing.assert_close(second[:, 0], first[:, 0], rtol=0, atol=1e-12)


# Inversion


@pytest.mark.one_schedule
@pytest.mark.parametrize("method", [ddim, heun, dpmpp_2m])
def test_the_noise_that_is_found_gives_the_samples_back(method, exact):
    plain = replace(recipe(method, steps=30), guidance=ClassifierFree(1.0))
    noise = plain.sample(exact, labels, (2,), start=Inversion(given))
    again = plain.sample(exact, labels, (2,), start=FromNoise(noise))
    assert not torch.allclose(noise, given, atol=0.2)
    torch.testing.assert_close(again, given, rtol=0, atol=0.12 if method is ddim else 0.03)


# What they share


@pytest.mark.one_schedule
@every_method
@pytest.mark.parametrize(
    "start", [ImageToImage(given, 0.6), Inpainting(given, unknown), FromNoise(given)], ids=lambda s: type(s).__name__
)
def test_the_batch_size_changes_no_sample(method, start, exact):
    torch.testing.assert_close(
        sample(exact, method, start, batch_size=2), sample(exact, method, start), rtol=0, atol=1e-5
    )


def test_inversion_is_the_same_in_small_batches(exact):
    torch.testing.assert_close(
        *(sample(exact, start=Inversion(given), batch_size=size) for size in (2, 500)), rtol=0, atol=1e-5
    )


def test_a_function_is_called_after_every_step_of_every_batch(exact):
    calls = []
    recipe(batch_size=2, steps=4).sample(exact, labels, (2,), after_step=lambda: calls.append(1))
    assert len(calls) == 3 * 4
