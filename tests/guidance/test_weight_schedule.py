import math

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import ClassifierFree, WeightSchedule
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, heun, uniform_times
from guided_diffusion.schedules import Cosine

F64 = torch.float64
KEEP_THE_MEAN = ["constant", "linear", "cosine", "inverse", "sine", "v_shape", "lambda_shape"]


def one_or_zero(x_t, t, y):
    """Return 1 with a label and 0 without one, so that guidance returns its weight."""
    x0 = (y >= 0).to(x_t)[:, None].expand_as(x_t)
    return Prediction(x0, x0)


def weights(guidance, tau):
    t = 1 - torch.as_tensor(tau, dtype=F64)
    labels = torch.zeros(len(t), dtype=torch.long)
    return guidance(one_or_zero, Cosine())(torch.zeros(len(t), 1, dtype=F64), t, labels).x0[:, 0]


@pytest.mark.parametrize("shape", KEEP_THE_MEAN)
def test_the_mean_of_the_weight_over_uniform_times_is_the_scale(shape):
    tau = (torch.arange(1000) + 0.5) / 1000
    assert weights(WeightSchedule(3.0, shape), tau).mean().item() == pytest.approx(3.0, abs=1e-6)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ("linear", [0.0, 0.5, 2.0]),
        ("cosine", [0.0, 1 - math.sqrt(0.5), 2.0]),
        ("inverse", [2.0, 1.5, 0.0]),
        ("sine", [2.0, 1 + math.sqrt(0.5), 0.0]),
        ("v_shape", [2.0, 1.0, 2.0]),
        ("lambda_shape", [0.0, 1.0, 0.0]),
        ("power", [0.0, (1 - math.cos(math.pi / 16)) / 2, 1.0]),
        ("clamp", [0.7, 0.7, 2.0]),
    ],
)
def test_a_shape_has_its_values_at_noise_at_a_quarter_and_at_the_image(shape, expected):
    settings = {"power": {"power": 2.0}, "clamp": {"floor": 0.7}}.get(shape, {})
    found = weights(WeightSchedule(3.0, shape, **settings), [0.0, 0.25, 1.0])
    torch.testing.assert_close(found, 1 + 2 * torch.tensor(expected, dtype=F64), rtol=0, atol=1e-12)


def test_the_means_of_power_and_clamp_are_those_documented():
    tau = (torch.arange(1000) + 0.5) / 1000
    assert weights(WeightSchedule(2.0, "power"), tau).mean().item() == pytest.approx(1.5, abs=1e-6)
    assert weights(WeightSchedule(2.0, "clamp", floor=0.4), tau).mean().item() == pytest.approx(2.04, abs=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.7, torch.tensor([0.0, 1.0, 2.7])])
def test_a_constant_shape_is_classifier_free_guidance(scale, mixture):
    noise, labels = torch.randn(3, 2, dtype=F64), torch.tensor([0, 1, 2])
    settings = mixture.schedule, noise, uniform_times(mixture.schedule, 4), labels
    guidances = WeightSchedule(scale, "constant"), ClassifierFree(scale)
    walks = (heun(each(mixture, mixture.schedule), *settings) for each in guidances)
    for one, other in zip(*walks, strict=True):
        assert torch.equal(one.x, other.x)


@pytest.mark.parametrize("shape", [*KEEP_THE_MEAN, "power", "clamp"])
def test_a_scale_of_one_is_the_conditional_model(shape, mixture, noisy, counted):
    model = counted(mixture)
    assert torch.equal(WeightSchedule(1.0, shape)(model, mixture.schedule)(*noisy).x0, mixture(*noisy).x0)
    assert model.calls == [noisy[2].tolist()]


def test_each_sample_has_its_own_scale_and_time(mixture, noisy):
    x_t, t, y = noisy
    scale = torch.linspace(-1, 4, len(t), dtype=F64)
    together = WeightSchedule(scale, "cosine")(mixture, mixture.schedule)(x_t, t, y)
    for k in range(len(t)):
        one = WeightSchedule(scale[k].item(), "cosine")(mixture, mixture.schedule)(x_t[k, None], t[k, None], y[k, None])
        torch.testing.assert_close(together.x0[k, None], one.x0, rtol=0, atol=1e-12)


def test_where_the_shape_is_zero_it_needs_one_evaluation():
    recipe = Recipe(WeightSchedule(3.0, "linear"), sampler=Sampler(steps=10))
    assert evaluations_per_sample(recipe, Cosine()) == 19


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": math.nan}, "scale must be finite"),
        ({"shape": "round"}, "shape must be one of constant, linear, .*, got 'round'"),
        ({"shape": "power", "power": 0.0}, "power must be positive and finite, got 0.0"),
        ({"shape": "clamp", "floor": -0.1}, r"floor must be in \[0, 2\), got -0.1"),
        ({"shape": "clamp", "floor": 2.0}, r"floor must be in \[0, 2\), got 2.0"),
        ({"power": 2.0}, "power has no effect on shape=linear: leave it out"),
        ({"shape": "power", "floor": 1.0}, "floor has no effect on shape=power: leave it out"),
    ],
)
def test_invalid_settings_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        WeightSchedule(**settings)
