import math

import pytest
import torch

from guided_diffusion.classifiers import gradient
from guided_diffusion.denoisers import UNLABELLED
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import AdamClassifier
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, begin, ddim, heun, uniform_times
from guided_diffusion.samplers.walk import Walk
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
every_base = pytest.mark.parametrize("base", ["unconditional", "conditional"])


def never(x_t, t):
    raise AssertionError("the classifier was asked")


def steps_of(denoise, schedule, x_t, y, count=5, repeats=1):
    """The eps at each step of a walk, at the same samples; ``repeats`` evaluations in each step."""
    walk = Walk(uniform_times(schedule, count))
    denoise = begin(denoise, walk)
    found = []
    for t, _ in walk:
        many = [denoise(x_t * (1 + n), t.expand(len(x_t)), y) for n in range(repeats)]
        found.append(many[0].eps)
    return found


@every_base
def test_each_step_follows_the_weighted_means_of_the_gradients_so_far(mixture, noisy, base):
    """``m^ = sum_i b1^(n-i) g_i / sum_i b1^(n-i)`` and the same of the squares, which is Adam's bias correction."""
    x_t, _, y = noisy
    schedule, w, grads = mixture.schedule, 2.5, []
    guidance = AdamClassifier(mixture.log_posterior, w, base, strength=0.1, b1=0.6, b2=0.8)
    found = steps_of(guidance(mixture, schedule), schedule, x_t, y)

    def mean(values, b):
        weights = [b**age for age in reversed(range(len(values)))]
        return sum(weight * value for weight, value in zip(weights, values, strict=True)) / sum(weights)

    for eps, t in zip(found, uniform_times(schedule, 5), strict=False):
        at = t.expand(9)
        grads.append(gradient(mixture.log_posterior, x_t, at, y))
        d = mean(grads, 0.6) / (mean([g**2 for g in grads], 0.8).sqrt() + 1e-8)
        plain = mixture(x_t, at, y if base == "conditional" else None).eps
        expected = plain - (w - (base == "conditional")) * schedule(t)[1] * 0.1 * d
        torch.testing.assert_close(eps, expected, rtol=0, atol=1e-12)


def test_two_steps_by_hand(mixture):
    """Gradients 3 and then -1 in one value, with b1 = 1/2 and b2 = 1/4."""
    slopes = iter([3.0, -1.0])
    guidance = AdamClassifier(lambda x, t: torch.stack([next(slopes) * x[:, 0], 0 * x[:, 0]], 1), 1.0, b1=0.5, b2=0.25)
    schedule, x_t, y = Cosine(), torch.zeros(1, 2, dtype=F64), torch.zeros(1, dtype=torch.long)
    found = steps_of(guidance(mixture, schedule), schedule, x_t, y, count=2)
    g = [3 * 0.5, -1 * 0.5]  # the softmax of equal logits
    m, v = (0.5 * 0.5 * g[0] + 0.5 * g[1]) / 0.75, (0.25 * 0.75 * g[0] ** 2 + 0.75 * g[1] ** 2) / 0.9375
    for eps, t, d in zip(found, uniform_times(schedule, 2), [1.0, m / math.sqrt(v)], strict=False):
        plain = mixture(x_t, t.expand(1), None).eps
        change = (plain - eps)[0] / (0.03 * schedule(t)[1])
        torch.testing.assert_close(change, torch.tensor([d, 0.0], dtype=F64), rtol=0, atol=1e-7)


def test_without_memory_it_is_the_sign_of_the_gradient(mixture, noisy):
    x_t, _, y = noisy
    guidance = AdamClassifier(mixture.log_posterior, 2.0, strength=0.1, b1=0.0, b2=0.0)
    for eps, t in zip(
        steps_of(guidance(mixture, mixture.schedule), mixture.schedule, x_t, y),
        uniform_times(mixture.schedule, 5),
        strict=False,
    ):
        g = gradient(mixture.log_posterior, x_t, t.expand(9), y)
        expected = mixture(x_t, t.expand(9), None).eps - 0.2 * mixture.schedule(t)[1] * g.sign()
        torch.testing.assert_close(eps, expected, rtol=0, atol=1e-4)  # 1e-8 beside small gradients


def test_a_second_evaluation_of_a_step_has_its_own_gradient_and_moves_no_state(mixture, noisy):
    x_t, _, y = noisy
    denoise = AdamClassifier(mixture.log_posterior, 2.0)(mixture, mixture.schedule)
    once, thrice = (steps_of(denoise, mixture.schedule, x_t, y, repeats=repeats) for repeats in (1, 3))
    assert all(torch.equal(*pair) for pair in zip(once, thrice, strict=True))


@pytest.mark.parametrize("method", [ddim, heun])
def test_a_sample_depends_on_no_other_and_a_second_run_is_the_same(mixture, method):
    noise, y = torch.randn(6, 2, dtype=F64), torch.tensor([0, 1, 2, 0, UNLABELLED, 2])
    scale = torch.tensor([0.0, 1.0, 2.0, 5.0, 3.0, 1.0], dtype=F64)
    times, schedule = uniform_times(mixture.schedule, 3), mixture.schedule

    def sample(rows, scale):
        denoise = AdamClassifier(mixture.log_posterior, scale[rows], strength=0.1)(mixture, schedule)
        *_, last = method(denoise, schedule, noise[rows], times, y[rows])
        return last.x

    whole = sample(torch.arange(6), scale)
    assert torch.equal(whole, sample(torch.arange(6), scale))
    order = torch.tensor([5, 0, 3])
    torch.testing.assert_close(whole[order], sample(order, scale), rtol=0, atol=1e-12)
    others = scale.clone()
    others[1:3] = 9.0
    rest = torch.tensor([0, 3, 4, 5])
    torch.testing.assert_close(whole[rest], sample(torch.arange(6), others)[rest], rtol=0, atol=1e-12)
    *_, plain = method(lambda x, t, y: mixture(x, t, None), schedule, noise, times, y)
    torch.testing.assert_close(whole[[0, 4]], plain.x[[0, 4]], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("base", "scale", "labels"), [("unconditional", 0.0, False), ("conditional", 1.0, True)])
def test_at_the_scale_of_the_base_it_equals_it_and_calls_no_classifier(mixture, noisy, base, scale, labels):
    x_t, t, y = noisy
    plain = mixture(x_t, t, y if labels else None)
    for guidance in (AdamClassifier(never, scale, base), AdamClassifier(never, 7.0, base).unguided()):
        guided = guidance(mixture, mixture.schedule)(x_t, t, y)
        assert torch.equal(guided.x0, plain.x0)
        assert torch.equal(guided.eps, plain.eps)


@pytest.mark.parametrize("b2", [0.0, 0.51])
def test_where_the_gradient_is_zero_it_equals_the_base(mixture, noisy, b2):
    """Also where it becomes zero after the first step, and m is not, without a memory of the squares."""
    slopes = iter([1.0, 0.0, 0.0])
    guidance = AdamClassifier(lambda x, t: torch.stack([next(slopes) * x[:, 0], 0 * x[:, 0]], 1), 2.0, b2=b2)
    x_t, _, y = noisy
    found = steps_of(guidance(mixture, mixture.schedule), mixture.schedule, x_t, y % 2, count=3)
    assert all(eps.isfinite().all() and eps.abs().max() < 10 for eps in found)
    t = uniform_times(mixture.schedule, 3)[2].expand(9)
    assert torch.equal(found[2][:, 1], mixture(x_t, t, None).eps[:, 1])
    if b2 == 0:
        assert torch.equal(found[2], mixture(x_t, t, None).eps)


def test_the_image_and_the_noise_add_up_to_the_input(mixture, noisy):
    x_t, _, y = noisy
    walk = Walk(uniform_times(mixture.schedule, 4))
    denoise = begin(AdamClassifier(mixture.log_posterior, 3.0)(mixture, mixture.schedule), walk)
    for t, _ in walk:
        at = t.expand(9)
        torch.testing.assert_close(perturb(*denoise(x_t, at, y), at, mixture.schedule), x_t, rtol=0, atol=1e-12)


def test_it_counts_as_one_evaluation_of_the_network():
    assert evaluations_per_sample(Recipe(AdamClassifier(None, 3.0), sampler=Sampler(steps=7)), Cosine()) == 7


def test_outside_of_a_sampler_it_says_what_is_missing(mixture, noisy):
    with pytest.raises(ValueError, match="this guidance follows a sampler from step to step"):
        AdamClassifier(mixture.log_posterior, 3.0)(mixture, mixture.schedule)(*noisy)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("strength", -1.0, "strength must be at least 0, got -1.0"),
        ("b1", 1.0, r"b1 must be in \[0, 1\), got 1.0"),
        ("b2", math.nan, r"b2 must be in \[0, 1\), got nan"),
    ],
)
def test_a_setting_out_of_range_is_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        AdamClassifier(never, **{name: value})


def test_a_judge_is_refused():
    class Judging:
        is_judge = True

        def __call__(self, x0, t):
            return x0

    with pytest.raises(ValueError, match="holds a judge, which knows clean images alone"):
        AdamClassifier(Judging())
