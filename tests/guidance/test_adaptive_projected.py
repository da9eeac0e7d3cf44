import math
from dataclasses import replace

import pytest
import torch
from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

from guided_diffusion.denoisers import Prediction
from guided_diffusion.evaluation.chunks import Watched
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import AdaptiveProjected, ClassifierFree, NoThreshold
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, Walk, begin, ddim, heun, uniform_times
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
SCHEDULE = Cosine()


@pytest.fixture
def schedule():
    """One schedule is enough here."""
    return Cosine()


@pytest.mark.parametrize(
    ("eta", "norm_threshold", "momentum"),
    [(0.0, 2.5, -0.75), (0.3, 0.2, -0.5), (1.0, math.inf, 0.5)],
)
def test_it_is_the_rule_of_diffusers_on_x0_step_after_step(mixture, noisy, eta, norm_threshold, momentum):
    (x_t, t, y), w = noisy, 4.0
    walk, buffer = Walk(torch.linspace(1, 0, 4, dtype=F64)), MomentumBuffer(momentum)
    denoise = begin(AdaptiveProjected(w, eta, norm_threshold, momentum)(mixture, mixture.schedule), walk)
    for step, _ in enumerate(walk):
        x = x_t + step
        c, u = mixture(x, t, y).x0, mixture(x, t, None).x0
        expected = normalized_guidance(c, u, w - 1, buffer, eta, norm_threshold, use_original_formulation=True)
        guided = denoise(x, t, y)
        torch.testing.assert_close(guided.x0, expected, rtol=0, atol=1e-12)
        torch.testing.assert_close(perturb(*guided, t, mixture.schedule), x, rtol=0, atol=1e-12)


def samples(guidance, denoise, noise, y, sampler=heun):
    path = sampler(guidance(denoise, SCHEDULE), SCHEDULE, noise, uniform_times(SCHEDULE, 3), y)
    return torch.stack([step.x for step in path])


@pytest.mark.parametrize("w", [3.0, torch.tensor([0.0, 1.0, 3.0, -1.0])], ids=str)
def test_neutral_settings_are_classifier_free_guidance_bit_for_bit(mixture, w):
    neutral = replace(AdaptiveProjected(w), **AdaptiveProjected.as_classifier_free)
    noise, y = torch.randn(4, 2, dtype=F64), torch.tensor([0, 1, 2, 0])
    assert torch.equal(*(samples(each, mixture, noise, y) for each in (neutral, ClassifierFree(w))))


def test_at_scale_one_it_is_the_conditional_model_bit_for_bit(mixture):
    noise, y = torch.randn(4, 2, dtype=F64), torch.tensor([0, 1, 2, 0])
    unguided = AdaptiveProjected(3.0).unguided()
    assert torch.equal(*(samples(each, mixture, noise, y) for each in (unguided, ClassifierFree(1.0))))


@pytest.mark.parametrize(("sampler", "steps"), [(ddim, [0, 1, 2, 3]), (heun, [0, 0, 1, 1, 2, 2, 3])])
def test_the_sum_of_constant_differences_is_geometric_in_the_steps(sampler, steps):
    c, u, beta = torch.tensor([[1.0, 0.0]], dtype=F64), torch.tensor([[0.0, 2.0]], dtype=F64), -0.75
    seen = []

    def denoise(x_t, t, y):
        x0 = torch.where((y >= 0)[:, None], c, u)
        return Prediction(x0, torch.zeros_like(x0))

    guided = AdaptiveProjected(3.0, 1.0, math.inf, beta)(denoise, SCHEDULE)
    guided = Watched(NoThreshold(), seen.append)(guided, SCHEDULE)
    list(sampler(guided, SCHEDULE, torch.zeros(1, 2, dtype=F64), uniform_times(SCHEDULE, 4), torch.tensor([0])))
    assert len(seen) == len(steps)
    for step, prediction in zip(steps, seen, strict=True):
        total = (c - u) * (1 - beta ** (step + 1)) / (1 - beta)
        torch.testing.assert_close(prediction.x0, c + 2 * total, rtol=0, atol=1e-12)


def test_in_one_dimension_only_the_parallel_part_is_left():
    """``eta = 0`` is the conditional model, and ``eta`` is a factor of ``w - 1``."""
    oracle = GaussianMixture(SCHEDULE, torch.tensor([[0.5], [-0.5]], dtype=F64), torch.full((2, 1, 1), 0.1, dtype=F64))
    x_t, t, y = torch.randn(5, 1, dtype=F64), torch.full((5,), 0.5, dtype=F64), torch.tensor([0, 1, 0, 1, 0])
    for eta in (0.0, 0.4):
        walk = Walk(torch.tensor([0.5, 0.0], dtype=F64))
        denoise = begin(AdaptiveProjected(3.0, eta, math.inf, 0.0)(oracle, SCHEDULE), walk)
        for _ in walk:
            expected = ClassifierFree(1 + 2 * eta)(oracle, SCHEDULE)(x_t, t, y).x0
            torch.testing.assert_close(denoise(x_t, t, y).x0, expected, rtol=0, atol=1e-12)


def test_a_sample_does_not_depend_on_the_others(mixture):
    noise, y, w = torch.randn(4, 2, dtype=F64), torch.tensor([0, 1, 2, 0]), torch.tensor([2.0, 3.0, 0.0, 1.0])
    together = samples(AdaptiveProjected(w, norm_threshold=0.1), mixture, noise, y)
    part = samples(AdaptiveProjected(w[[3, 1]], norm_threshold=0.1), mixture, noise[[3, 1]], y[[3, 1]])
    torch.testing.assert_close(part, together[:, [3, 1]], rtol=0, atol=1e-12)
    alone = samples(AdaptiveProjected(2.0, norm_threshold=0.1), mixture, noise[:1], y[:1])
    torch.testing.assert_close(alone, together[:, :1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("value", [0.0, 1e-30, 1e15])
def test_it_is_finite_where_predictions_are_zero_or_huge(value):
    def denoise(x_t, t, y):
        x0 = torch.full_like(x_t, value)
        return Prediction(x0, torch.zeros_like(x_t))

    guided = samples(AdaptiveProjected(3.0), denoise, torch.zeros(2, 3, 4, 5), torch.tensor([0, 1]), ddim)
    assert guided.isfinite().all()


@pytest.mark.parametrize(("w", "evaluations"), [(0.0, 5), (1.0, 5), (3.0, 10)])
def test_it_takes_the_evaluations_of_classifier_free_guidance(w, evaluations):
    assert evaluations_per_sample(Recipe(AdaptiveProjected(w), sampler=Sampler(steps=5)), SCHEDULE) == evaluations


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"eta": math.nan}, "eta must be finite, got nan"),
        ({"norm_threshold": 0.0}, "norm_threshold must be positive, got 0.0"),
        ({"momentum": 1.0}, r"momentum must be in \(-1, 1\), got 1.0"),
        ({"scale": math.inf}, "scale must be finite"),
    ],
)
def test_an_invalid_setting_raises(setting, message):
    with pytest.raises(ValueError, match=message):
        AdaptiveProjected(**setting)
