from dataclasses import dataclass, replace
from functools import partial

import pytest
import torch
from torch import nn

from guided_diffusion.denoisers import Denoiser, Prediction
from guided_diffusion.guidance import (
    ClassifierFree,
    ClassifierGuidance,
    Clip,
    Combined,
    DynamicThreshold,
    Guidance,
    LimitedInterval,
    NoThreshold,
)
from guided_diffusion.networks import MLP
from guided_diffusion.recipe import Recipe, eval_mode
from guided_diffusion.samplers import Sampler, ddim, ddpm, dpmpp_2m, heun, log_snr_times, sde_dpmpp_2m
from guided_diffusion.schedules import Cosine, LinearBeta

F64 = torch.float64
every_method = pytest.mark.parametrize("method", [ddpm, ddim, partial(ddim, eta=0.5), heun, dpmpp_2m, sde_dpmpp_2m])
labels = torch.tensor([0, 1, 2, 0, 1, 2, 2])


@pytest.fixture
def schedule():
    return Cosine()


def recipe(method=ddim, scale=2.0, batch_size=500, threshold=None):
    return Recipe(ClassifierFree(scale), threshold or Clip(), Sampler(method, steps=6), batch_size)


@every_method
@pytest.mark.parametrize("batch_size", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_the_batch_size_does_not_change_the_samples(method, batch_size, exact):
    together = recipe(method).sample(exact, labels, (2,))
    in_parts = recipe(method, batch_size=batch_size).sample(exact, labels, (2,))
    torch.testing.assert_close(in_parts, together, rtol=0, atol=1e-5)


@every_method
def test_a_sample_depends_on_its_number_in_the_run_and_not_on_its_place(method, exact):
    run = recipe(method).sample(exact, labels, (2,))
    some = recipe(method).sample(exact, labels[[5, 2]], (2,), indices=[5, 2])
    torch.testing.assert_close(some, run[[5, 2]], rtol=0, atol=1e-5)


@every_method
def test_a_sweep_is_the_same_as_one_run_per_scale(method, exact):
    scales = [0, 0.5, 1, 3]
    sweep = recipe(method).sweep(exact, labels, (2,), scales)
    assert sweep.shape == (4, 7, 2)
    for images, scale in zip(sweep, scales, strict=True):
        torch.testing.assert_close(images, recipe(method, scale).sample(exact, labels, (2,)), rtol=0, atol=1e-5)


def test_a_sweep_in_small_batches_is_the_same_sweep(exact):
    sweeps = [recipe(batch_size=size).sweep(exact, labels, (2,), [0.0, 3.0]) for size in (5, 500)]
    torch.testing.assert_close(*sweeps, rtol=0, atol=1e-5)


def test_scale_one_is_the_model_without_guidance_to_the_bit(exact):
    guided = recipe(scale=1.0).sample(exact, labels, (2,))
    plain = replace(recipe(), guidance=Plain()).sample(exact, labels, (2,))
    assert torch.equal(guided, plain)


@dataclass(frozen=True)
class Plain(Guidance):
    """A guidance that returns the denoiser as it is."""

    scale: float = 1.0

    def __call__(self, denoise, schedule):
        return denoise


def test_the_scale_changes_the_samples_and_so_does_the_seed(exact):
    images = recipe().sample(exact, labels, (2,))
    assert not torch.equal(images, recipe(scale=3.0).sample(exact, labels, (2,)))
    assert not torch.equal(images, recipe().sample(exact, labels, (2,), seed=1))
    assert torch.equal(images, recipe().sample(exact, labels, (2,), seed=0))


def test_guidance_makes_samples_likelier_to_be_of_their_class(exact, mixture):
    y = torch.arange(3).repeat(100)
    sweep = recipe(threshold=NoThreshold()).sweep(exact, y, (2,), [0.0, 1.0, 3.0])
    at_the_data = torch.full((300,), 1e-3)
    likelihoods = [
        (mixture.log_prob(x, at_the_data, y) - mixture.log_prob(x, at_the_data, None)).exp().mean() for x in sweep
    ]
    assert likelihoods[0] < likelihoods[1] - 0.1
    assert likelihoods[1] < likelihoods[2]


def test_samples_of_a_class_have_its_mean(exact, mixture):
    x = Recipe(ClassifierFree(1.0), NoThreshold(), Sampler(heun, 30)).sample(
        exact, torch.arange(2).repeat_interleave(1000), (2,)
    )
    for k in range(2):
        tolerance = 5 * (mixture.covariances[k].diagonal() / 1000).sqrt()
        assert ((x[1000 * k : 1000 * (k + 1)].mean(0) - mixture.means[k]).abs() < tolerance).all()


def test_the_threshold_is_applied_after_guidance(exact):
    with torch.no_grad():
        steps = recipe(scale=5.0, threshold=Clip(0.5)).steps(exact, labels, (2,), range(7))
        assert {step.x0.abs().max().item() for step in steps} == {0.5}


def test_sampling_works_in_inference_mode(exact):
    images = recipe().sample(exact, labels, (2,))
    with torch.inference_mode():
        assert torch.equal(recipe().sample(exact, labels, (2,)), images)


def test_images_are_on_the_cpu_in_single_precision_and_carry_no_gradient(exact):
    images = recipe().sample(exact, labels, (2,))
    assert (images.device.type, images.dtype, images.requires_grad) == ("cpu", torch.float32, False)


def test_steps_yields_every_step_of_one_batch(exact):
    with torch.no_grad():
        steps = list(recipe().steps(exact, labels, (2,), range(7)))
    assert len(steps) == 6
    assert torch.equal(steps[-1].x, recipe().sample(exact, labels, (2,)))


@every_method
def test_sampling_leaves_the_global_random_state_alone(method, exact):
    before = torch.random.get_rng_state()
    recipe(method).sample(exact, labels, (2,))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_the_model_samples_in_eval_mode_and_returns_to_training(exact):
    seen = []
    exact.backbone.register_forward_hook(lambda module, *_: seen.append(module.training))
    exact.train()
    recipe().sample(exact, labels, (2,))
    assert set(seen) == {False}
    assert exact.training


@pytest.mark.parametrize("batch_size", [0, -1])
def test_a_batch_size_below_one_is_refused(batch_size):
    with pytest.raises(ValueError, match=f"batch_size must be at least 1, got {batch_size}"):
        recipe(batch_size=batch_size)


def parts(*modes):
    """A module whose parts are in these modes."""
    module = nn.Sequential(*(nn.Dropout() for _ in modes[1:]))
    for part, mode in zip(module.modules(), modes, strict=True):
        part.training = mode
    return module


@pytest.mark.parametrize(
    "modes", [(True, True, True), (False, False, False), (True, False, True), (False, True, False)]
)
def test_eval_mode_restores_the_mode_of_every_submodule(modes):
    module = parts(*modes)
    with eval_mode(module):
        assert not any(part.training for part in module.modules())
    assert tuple(part.training for part in module.modules()) == modes


def test_eval_mode_restores_the_modes_after_an_error():
    module = parts(True, False, True)
    with pytest.raises(RuntimeError, match="stop"), eval_mode(module):
        raise RuntimeError("stop")
    assert [part.training for part in module.modules()] == [True, False, True]


def classify(x_t, t):
    return torch.stack([x_t.sum(1), x_t.square().sum(1) * t, x_t[:, 0]], 1)


@every_method
@pytest.mark.parametrize(
    ("guidance", "threshold"),
    [
        (ClassifierFree(torch.tensor([0.0, 1.0, 3.0], dtype=F64)), Clip()),
        (LimitedInterval(2.0), DynamicThreshold()),
        (LimitedInterval(torch.tensor([0.0, 1.0, 3.0], dtype=F64)), NoThreshold()),
        (ClassifierGuidance(classify, 2.0), Clip()),
        (Combined(classify, 2.0, 1.5), NoThreshold()),
    ],
    ids=lambda part: type(part).__name__,
)
def test_a_device_without_float64_samples_as_the_cpu_does(guidance, threshold, method, on_device):
    schedule = LinearBeta()

    def denoise(x_t, t, y):
        shift = 0 if y is None else y[:, None] / 3
        return Prediction.from_x0((x_t - shift).tanh(), x_t, t, schedule)

    def last(noise, y):
        *_, step = Sampler(method, 3, log_snr_times)(guided, schedule, noise, y, torch.ones)
        return step.x

    guided = threshold(guidance(denoise, schedule), schedule)
    noise, y = torch.randn(3, 2), torch.tensor([0, 1, 2])
    x = last(on_device(noise), on_device(y))
    assert torch.equal(x.cpu(), last(noise, y))
    with pytest.raises(TypeError, match="no float64"):
        x.double()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [([], "labels must hold at least one class"), ([0, 3], "labels must be below 3, the number of classes, got 3")],
)
def test_wrong_labels_are_refused(wrong, message, schedule):
    denoiser = Denoiser(MLP(2, 3, width=8), schedule)
    with pytest.raises(ValueError, match=message):
        recipe().sample(denoiser, torch.tensor(wrong, dtype=torch.long), (2,))
