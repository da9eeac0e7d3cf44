"""Classifier guidance between two noise levels."""

import math

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance, Combined, LimitedInterval
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.schedules import Cosine
from guided_diffusion.utils.instantiate import build

F64 = torch.float64
every_base = pytest.mark.parametrize("base", ["unconditional", "conditional"])
per_sample = torch.tensor([0.0, 0.5, 1.0, 2.0, 5.0, -1.0, 1.0, 0.0, 3.0], dtype=F64)
every_scale = pytest.mark.parametrize("scale", [0.0, 1.0, 3.0, per_sample], ids=str)


def noise_level(schedule, t):
    alpha, sigma = schedule(t)
    return sigma / alpha


@pytest.fixture
def levels(mixture, noisy):
    """An interval that holds some of the times of ``noisy``, and which of them it holds."""
    noise = noise_level(mixture.schedule, noisy[1])
    low, high = noise.quantile(0.3).item(), noise.quantile(0.7).item()
    inside = (low < noise) & (noise <= high)
    assert 0 < inside.sum() < len(inside)
    return low, high, inside


@pytest.fixture
def asked(mixture):
    """A classifier that knows the exact posterior, and a list of the times at which it was evaluated."""
    times = []

    def classify(x_t, t):
        times.append(t.tolist())
        return mixture.log_posterior(x_t, t)

    return classify, times


@every_scale
@every_base
def test_with_an_exact_classifier_it_is_the_limited_interval_of_classifier_free_guidance(
    mixture, noisy, levels, scale, base
):
    low, high, _ = levels
    guidance = ClassifierGuidance(mixture.log_posterior, scale, base, sigma_lo=low, sigma_hi=high)
    guided = guidance(mixture, mixture.schedule)(*noisy)
    expected = LimitedInterval(scale, low, high)(mixture, mixture.schedule)(*noisy)
    torch.testing.assert_close(guided.eps, expected.eps, rtol=0, atol=1e-12)
    sizes = 1 / mixture.schedule(noisy[1])[0][:, None]
    torch.testing.assert_close(guided.x0 / sizes, expected.x0 / sizes, rtol=0, atol=1e-12)


def test_worked_out_by_hand():
    """At sigma / alpha = 1 and a gradient of 3, k = w - 1 = 2: eps falls by 2 * 3 * sigma, only in the interval."""
    schedule, sigma = Cosine(), 0.5**0.5
    t = schedule.time(torch.tensor([0.0, -2 * math.log(2.0), 2 * math.log(2.0)], dtype=F64))  # sigma / alpha: 1, 2, 1/2
    x_t, y = torch.zeros(3, 1, dtype=F64), torch.zeros(3, dtype=torch.long)

    def zeros(x_t, t, y):
        return Prediction(torch.zeros_like(x_t), torch.zeros_like(x_t))

    def classify(x_t, t):  # the gradient of log p(0 | x) is 6 (1 - p), which is 3 at x = 0
        return torch.cat([6 * x_t, torch.zeros_like(x_t)], dim=1)

    guided = ClassifierGuidance(classify, 3.0, "conditional", sigma_lo=0.6, sigma_hi=1.9)(zeros, schedule)
    eps = guided(x_t, t, y).eps[:, 0]
    assert eps.tolist() == pytest.approx([-6 * sigma, 0, 0], abs=1e-9)


@every_base
@pytest.mark.parametrize("scale", [3.0, per_sample], ids=str)
def test_elsewhere_it_is_the_conditional_model_without_the_classifier_on_a_conditional_base(
    mixture, noisy, levels, asked, scale, base
):
    (low, high, inside), (classify, times), (x_t, t, y) = levels, asked, noisy
    guided = ClassifierGuidance(classify, scale, base, sigma_lo=low, sigma_hi=high)(mixture, mixture.schedule)(*noisy)
    w = torch.as_tensor(scale, dtype=F64).expand(9).where(inside, torch.ones((), dtype=F64))
    evaluated = w != (1 if base == "conditional" else 0)
    assert times == [t[evaluated].tolist()]
    if base == "conditional":
        plain = mixture(x_t, t, y)
        assert torch.equal(guided.eps[~inside], plain.eps[~inside])
        assert torch.equal(guided.x0[~inside], plain.x0[~inside])


def test_a_step_outside_evaluates_no_classifier_on_a_conditional_base(mixture, noisy, asked):
    classify, times = asked
    guidance = ClassifierGuidance(classify, 3.0, "conditional", sigma_hi=1e-6)
    plain = mixture(*noisy)
    assert torch.equal(guidance(mixture, mixture.schedule)(*noisy).eps, plain.eps)
    assert times == []


def test_the_upper_end_belongs_to_the_interval_and_the_lower_one_does_not(mixture, asked):
    classify, times = asked
    schedule, t = Cosine(), torch.tensor([0.5], dtype=F64)
    at = (-schedule.log_snr(t) / 2).exp().item()
    for low, high, evaluations in ((at, 9.0, 0), (0.0, at, 1)):
        guidance = ClassifierGuidance(classify, 3.0, "conditional", sigma_lo=low, sigma_hi=high)
        guidance(mixture, schedule)(torch.zeros(1, 2, dtype=F64), t, torch.tensor([0]))
        assert len(times) == evaluations


@every_base
def test_by_default_the_scale_holds_at_every_noise_level(mixture, noisy, base, asked):
    classify, times = asked
    guidance = ClassifierGuidance(classify, 3.0, base)
    assert (guidance.sigma_lo, guidance.sigma_hi) == (0, math.inf)
    guidance(mixture, mixture.schedule)(*noisy)
    assert times == [noisy[1].tolist()]


def test_combined_limits_the_classifier_alone(mixture, noisy, levels):
    low, high, inside = levels
    limits = {"classifier_sigma_lo": low, "classifier_sigma_hi": high}
    combined = Combined(mixture.log_posterior, 2.0, 3.0, **limits)(mixture, mixture.schedule)(*noisy)
    for scale, rows in ((4.0, inside), (2.0, ~inside)):  # exponents w + w' - 1
        expected = ClassifierFree(scale)(mixture, mixture.schedule)(*noisy)
        torch.testing.assert_close(combined.eps[rows], expected.eps[rows], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (-0.1, 1.0), (math.nan, 1.0)])
def test_an_empty_interval_raises(low, high):
    with pytest.raises(ValueError, match="0 <= sigma_lo < sigma_hi must hold"):
        ClassifierGuidance(None, 2.0, sigma_lo=low, sigma_hi=high)
    with pytest.raises(ValueError, match="0 <= classifier_sigma_lo < classifier_sigma_hi must hold"):
        Combined(None, 2.0, classifier_sigma_lo=low, classifier_sigma_hi=high)


@pytest.mark.parametrize(("option", "prefix"), [("classifier", ""), ("cfg_classifier", "classifier_")])
@pytest.mark.slow
def test_the_interval_is_set_on_the_command_line(option, prefix, compose):
    key = f"{prefix}sigma_hi"
    for overrides, expected in (((), math.inf), ((f"guidance.{key}=1.5",), 1.5), ((f"guidance.{key}=inf",), math.inf)):
        assert getattr(build(compose(f"guidance={option}", *overrides).guidance), key) == expected


def test_the_number_of_evaluations_of_the_denoiser_stays(mixture):
    from guided_diffusion.evaluation.cost import evaluations_per_sample

    for base in ("conditional", "unconditional"):
        recipe = Recipe(ClassifierGuidance(None, 3.0, base, sigma_hi=1.0), sampler=Sampler(steps=10))
        assert evaluations_per_sample(recipe, Cosine()) == 10
