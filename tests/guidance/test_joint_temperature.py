import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from guided_diffusion.classifiers import Classifier, softplus_for_relu
from guided_diffusion.denoisers import UNLABELLED, Denoiser
from guided_diffusion.evaluation.cost import evaluations_per_sample, labels_needed
from guided_diffusion.guidance import ClassifierGuidance, Clip, JointTemperature
from guided_diffusion.networks import NoisyClassifier, UNet
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, ddpm
from guided_diffusion.schedules import Cosine, LinearBeta, perturb

F64 = torch.float64
WEIGHT = torch.tensor([[1.0, 2.0], [-1.0, 0.5], [0.3, -2.0]], dtype=F64)
every_base = pytest.mark.parametrize("base", ["unconditional", "conditional"])


def linear(x0, t):
    return x0 @ WEIGHT.T.to(x0)


def never(x0, t):
    raise AssertionError("the classifier was asked")


@pytest.fixture
def gaussian(schedule):
    oracle = GaussianMixture.gaussian(schedule, torch.tensor([0.3, -0.2], dtype=F64), torch.eye(2, dtype=F64) / 4)
    return lambda x_t, t, y: oracle(x_t, t, None)


def by_hand(x0, y, tau1=1.0, tau2=0.5):
    """``tau1 W_y - tau2 softmax(tau2 W x0) W``, the gradient for a linear classifier."""
    return tau1 * WEIGHT[y] - tau2 * (tau2 * x0 @ WEIGHT.T).softmax(1) @ WEIGHT


@every_base
@pytest.mark.parametrize(("tau1", "tau2", "gamma"), [(1.0, 0.5, 0.3), (2.0, 0.0, 0.0), (1.0, 1.0, 0.3)])
def test_on_a_gaussian_with_a_linear_classifier_it_has_its_closed_form(
    gaussian, schedule, noisy, base, tau1, tau2, gamma
):
    x_t, t, y = noisy
    w = torch.tensor([0.0, 0.5, 1.0, 2.0, 5.0, -1.0, 1.0, 0.0, 3.0], dtype=F64)
    guidance = JointTemperature(linear, w, base, tau1, tau2, gamma)
    guided, plain = guidance(gaussian, schedule)(x_t, t, y), gaussian(x_t, t, None)
    alpha, sigma, time, k = (value[:, None] for value in (*schedule(t), t, w - int(base == "conditional")))
    g = (1 + gamma * (math.pi * time).sin() / time) * by_hand(plain.x0, y, tau1, tau2)
    torch.testing.assert_close(guided.eps, plain.eps - k * sigma * g, rtol=0, atol=1e-12)
    torch.testing.assert_close(alpha * guided.x0, alpha * plain.x0 + k * sigma**2 * g, rtol=0, atol=1e-12)
    torch.testing.assert_close(perturb(*guided, t, schedule), x_t, rtol=0, atol=1e-12)


def test_with_both_temperatures_one_it_follows_the_log_softmax_at_x0(mixture, noisy):
    x_t, t, y = noisy
    guidance = JointTemperature(mixture.log_posterior, 3.0, "unconditional", 1.0, 1.0, gamma=0.0, clean_t=0.0)
    guided, plain = guidance(mixture, mixture.schedule)(x_t, t, y), mixture(x_t, t, None)
    x0 = plain.x0.clone().requires_grad_()
    logits = mixture.log_posterior(x0, torch.zeros_like(t))
    (g,) = torch.autograd.grad(logits.log_softmax(1).gather(1, y[:, None]).sum(), x0)
    sigma = mixture.schedule(t)[1][:, None]
    torch.testing.assert_close(guided.eps, plain.eps - 3 * sigma * g, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("t", [1.0, 0.7, 0.4, 0.1])
@pytest.mark.parametrize("gamma", [0.0, 0.3])
def test_an_ancestral_step_moves_the_mean_as_in_the_code_of_the_authors(gaussian, t, gamma):
    """``mean + s (Sigma + gamma sin(pi t) max Sigma) g`` on the DDPM schedule, with Sigma the variance of the step."""
    schedule, x_t, y = LinearBeta(), torch.randn(3, 2, dtype=F64), torch.arange(3)

    def mean(denoise):
        times = torch.tensor([t, t - 0.001], dtype=F64)
        (one,) = ddpm(denoise, schedule, x_t, times, y, draw=lambda shape: torch.zeros(shape, dtype=F64))
        return one.x

    def variance(t):
        (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t - 0.001)
        return (sigma**2 - (alpha / alpha_next) ** 2 * sigma_next**2) * (sigma_next / sigma) ** 2

    at, last = torch.tensor(t, dtype=F64), torch.ones((), dtype=F64)
    factor = variance(at) + gamma * (math.pi * at).sin() * variance(last)
    moved = mean(JointTemperature(linear, 2.0, gamma=gamma)(gaussian, schedule)) - mean(gaussian)
    g = by_hand(gaussian(x_t, at.expand(3), None).x0, y)
    torch.testing.assert_close(moved, factor * g, rtol=0.05, atol=1e-12)  # a first-order step, and beta(0) > 0


@pytest.mark.parametrize(("base", "scale", "labels"), [("unconditional", 0.0, False), ("conditional", 1.0, True)])
def test_at_the_scale_of_the_base_it_equals_it_and_calls_no_classifier(mixture, noisy, base, scale, labels):
    x_t, t, y = noisy
    plain = mixture(x_t, t, y if labels else None)
    for guidance in (JointTemperature(never, scale, base), JointTemperature(never, 7.0, base).unguided()):
        guided = guidance(mixture, mixture.schedule)(x_t, t, y)
        assert torch.equal(guided.x0, plain.x0)
        assert torch.equal(guided.eps, plain.eps)


def test_the_classifier_sees_the_clean_estimates_of_the_labelled_samples_at_its_time(mixture, noisy):
    seen = []

    def classify(x0, t):
        seen.append((x0.detach(), t))
        return mixture.log_posterior(x0, t)

    x_t, t, y = noisy
    y = y.where(torch.arange(9) != 4, UNLABELLED)
    guided = JointTemperature(classify, 3.0, "unconditional", clean_t=0.02)(mixture, mixture.schedule)(x_t, t, y)
    plain, rows = mixture(x_t, t, None), [0, 1, 2, 3, 5, 6, 7, 8]
    ((x0, at),) = seen
    assert torch.equal(x0, plain.x0[rows])
    assert torch.equal(at, torch.full((8,), 0.02, dtype=F64))
    assert torch.equal(guided.x0[4], plain.x0[4])


def test_it_counts_as_one_evaluation_of_the_network():
    for base, labels in (("unconditional", {False}), ("conditional", {True})):
        recipe = Recipe(JointTemperature(None, 3.0, base, softplus_beta=3.0), sampler=Sampler(steps=7))
        assert evaluations_per_sample(recipe, Cosine()) == 7
        assert labels_needed(recipe, Cosine()) == labels


@pytest.mark.parametrize(("channels", "dtype"), [(1, torch.float32), (3, torch.bfloat16)])
def test_images_that_are_not_square_are_guided_in_inference_mode_whatever_their_batch(channels, dtype, perturbed):
    size = (8, 12)
    denoiser = Denoiser(perturbed(UNet(channels, size, 3, width=8, multipliers=(1, 2), blocks=1)), Cosine())
    classifier = Classifier(perturbed(NoisyClassifier(channels, size, 3, width=8, multipliers=(1, 2))), Cosine())
    recipe = Recipe(JointTemperature(classifier, 3.0), Clip(), Sampler(steps=2))
    scales, labels = torch.tensor([1.0, 2.0, 4.0]), torch.arange(3)
    with torch.inference_mode(), torch.autocast("cpu", dtype, enabled=dtype == torch.bfloat16):
        whole = recipe.sample(denoiser, labels, (channels, *size), scales=scales)
        cut = replace(recipe, batch_size=1).sample(denoiser, labels, (channels, *size), scales=scales)
    assert whole.isfinite().all()
    torch.testing.assert_close(whole, cut, rtol=0, atol=1e-4 if dtype == torch.float32 else 0.2)


# Softplus in place of ReLU


class WithReLU(nn.Module):
    """A classifier of points with a ReLU as a module and one as a function."""

    def __init__(self, activation=F.relu, module=None):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), module or nn.ReLU(inplace=True), nn.Linear(8, 3))
        self.activation = activation

    def forward(self, x, t):
        return self.activation(self.layers(x))


def test_softplus_takes_the_place_of_every_relu_and_leaves_the_classifier_as_it_is(noisy):
    network = WithReLU().double()
    smooth = WithReLU(lambda x: F.softplus(x, 3.0), nn.Softplus(3.0)).double()
    smooth.load_state_dict(network.state_dict())
    x, t, _ = noisy
    plain = network(x, t)
    assert torch.equal(softplus_for_relu(network, 3.0)(x, t), smooth(x, t))
    assert torch.equal(network(x, t), plain)
    assert not torch.equal(plain, smooth(x, t))


def test_softplus_is_used_for_the_gradient(mixture, noisy):
    network = WithReLU().double()
    guided = [
        JointTemperature(classify, 3.0, softplus_beta=beta)(mixture, mixture.schedule)(*noisy).x0
        for classify, beta in ((network, 3.0), (softplus_for_relu(network, 3.0), None))
    ]
    assert torch.equal(*guided)


def test_softplus_for_a_classifier_without_relu_is_refused(mixture, noisy):
    with pytest.raises(ValueError, match="softplus_beta has no effect on a classifier without ReLU: leave it out"):
        JointTemperature(linear, 3.0, softplus_beta=3.0)(mixture, mixture.schedule)(*noisy)


# What is refused


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("tau1", 0.0, "tau1 must be positive, got 0.0"),
        ("tau2", -1.0, "tau2 must be at least 0, got -1.0"),
        ("gamma", math.inf, "gamma must be at least 0, got inf"),
        ("softplus_beta", 0.0, "softplus_beta must be positive, or null for the ReLU, got 0.0"),
        ("clean_t", 1.0, r"clean_t must be in \[0, 1\), got 1.0"),
        ("base", "none", "base must be unconditional or conditional, got 'none'"),
        ("scale", math.nan, "scale must be finite"),
    ],
)
def test_a_setting_out_of_range_is_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        JointTemperature(linear, **{name: value})


class Judging:
    is_judge = True

    def __call__(self, x0, t):
        return linear(x0, t)


def test_a_judge_guides_only_where_it_is_allowed(mixture, noisy):
    with pytest.raises(ValueError, match=r"classifier holds a judge.*add guidance.allow_judge=true"):
        JointTemperature(Judging(), 3.0)
    with pytest.raises(ValueError, match=r"holds a judge, which knows clean images alone.*guidance=joint_temperature"):
        ClassifierGuidance(Judging(), 3.0)
    allowed, plain = JointTemperature(Judging(), 3.0, allow_judge=True), JointTemperature(linear, 3.0)
    guided = [guidance(mixture, mixture.schedule)(*noisy).x0 for guidance in (allowed, plain)]
    assert torch.equal(*guided)
