import math

import pytest
import torch

from guided_diffusion.denoisers import Prediction
from guided_diffusion.evaluation.cost import evaluations_per_sample
from guided_diffusion.guidance import ClassifierFree, Feedback
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import SampleNoise, Sampler, ddim, ddpm, heun, log_snr_times, uniform_times
from guided_diffusion.schedules import Cosine

F64 = torch.float64


def by_the_authors(denoise, schedule, x, times, labels, draws, guidance):
    """Sample by the authors' loop: in ``z = x / alpha``, with squared errors and a state after each step."""
    alpha, sigma = schedule(times)
    r, n, pi = sigma / alpha, len(times) - 1, guidance.pi
    variances = [(r[k] ** 2 - r[k + 1] ** 2) * r[k + 1] ** 2 / r[k] ** 2 for k in range(n)]
    at_t1 = guidance.t1 * n
    lower = math.floor(at_t1)
    backwards = variances[::-1]
    variance_t1 = (1 - at_t1 + lower) * backwards[lower] + (at_t1 - lower) * backwards[lower + 1]
    delta = math.log((1 - pi) * 3 / 2) / ((1 - guidance.t0) * n)
    tau = abs(2 * variance_t1 / 10 * delta)
    lowest = math.log((1 - pi) * guidance.lambda_max / (guidance.lambda_max - 1))
    z, state = x / alpha[0], torch.zeros(len(x), dtype=F64)
    for k in range(n):
        scale = state.exp() / (state.exp() - (1 - pi)) + guidance.scale - 1
        c, u = (denoise(z * alpha[k], times[k].expand(len(x)), y).x0 for y in (labels, None))
        kept = r[k + 1] ** 2 / r[k] ** 2
        mean, mean_c, mean_u = (kept * z + (1 - kept) * d for d in (u + scale[:, None] * (c - u), c, u))
        z = mean + (variances[k].sqrt() * draws[k] if k < n - 1 else 0)
        if k < n - 1:
            errors = ((z - mean_c) ** 2).sum(1) - ((z - mean_u) ** 2).sum(1)
            state = (state - tau / (2 * variances[k]) * errors + delta).clamp(lowest, 3)
    return z


@pytest.mark.parametrize(("w", "pi", "t0", "t1"), [(1.0, 0.95, 0.5, 0.4), (2.5, 0.7, 0.75, 0.55)])
def test_with_ddpm_it_is_the_loop_of_the_authors(w, pi, t0, t1, mixture):
    schedule, noise, labels = mixture.schedule, torch.randn(6, 2, dtype=F64), torch.arange(6) % 3
    times, draws = log_snr_times(schedule, 12, 6.0).to(F64), torch.randn(12, 6, 2, dtype=F64)
    guidance = Feedback(w, pi, 4.0, t0, t1)
    rest = iter(draws)
    *_, last = ddpm(guidance(mixture, schedule), schedule, noise, times, labels, lambda shape: next(rest))
    expected = by_the_authors(mixture, schedule, noise, times, labels, draws, guidance)
    torch.testing.assert_close(last.x, expected, rtol=0, atol=1e-10)


def estimates(mixture, times, labels):
    """Return the estimate of ``log p(y|x) - log p(y)`` in each step of ddpm, and the exact one.

    pi is nearly 1, so the samples are those of the conditional model. lambda is read from the guided prediction.
    """
    rest, schedule, x = 1e-6, mixture.schedule, torch.randn(len(labels), 2, dtype=F64)
    guided = Feedback(1.0, 1 - rest, 1e6, tau=1.0, delta=0.0)(mixture, schedule)
    prior = torch.zeros(3, dtype=F64).index_add(0, mixture.labels, mixture.weights).log()
    found, exact = [], []
    steps = ddpm(guided, schedule, x, times, labels, SampleNoise(0, range(len(labels))))
    for t, step in zip(times, steps, strict=False):
        now = t.expand(len(x))
        c, u = (mixture(x, now, y).x0 for y in (labels, None))
        above_one = ((step.x0 - c) * (c - u)).sum(1) / ((c - u) ** 2).sum(1)
        found.append((rest * (1 + 1 / above_one)).log())
        exact.append(mixture.log_posterior(x, now).gather(1, labels[:, None])[:, 0] - prior[labels])
        x = step.x
    return torch.stack(found), torch.stack(exact)


@pytest.mark.slow
def test_the_mean_estimate_is_the_exact_log_posterior_to_first_order_in_the_step(mixture):
    labels, errors = torch.arange(240) % 3, []
    for steps in (20, 80):
        found, exact = estimates(mixture, log_snr_times(mixture.schedule, steps, 4.0).to(F64)[:-1], labels)
        errors.append((found - exact).mean(1).abs().max().item())
        assert exact[-1].mean() > 0.7
    assert errors[1] < min(0.06, errors[0] / 3.5)


@pytest.mark.parametrize("sampler", [heun, ddpm])
def test_a_trust_of_one_is_classifier_free_guidance(sampler, mixture):
    schedule, noise, labels = mixture.schedule, torch.randn(4, 2, dtype=F64), torch.tensor([0, 1, 2, 0])
    scale, times = torch.tensor([0.0, 1.0, 2.7, 4.0]), uniform_times(schedule, 3)
    one, other = (
        sampler(each(mixture, schedule), schedule, noise, times, labels, SampleNoise(0, range(4)))
        for each in (Feedback(scale, 1.0), ClassifierFree(scale))
    )
    for a, b in zip(one, other, strict=True):
        assert torch.equal(a.x, b.x)


def test_unguided_it_is_the_conditional_model(mixture, noisy):
    assert torch.equal(Feedback(3.0).unguided()(mixture, mixture.schedule)(*noisy).x0, mixture(*noisy).x0)


def test_without_evidence_the_scale_rises_to_three_at_t0_and_stays_below_its_bound():
    """With tau = 0 only delta moves the state: lambda is 3 when half of ten steps are left."""

    def denoise(x_t, t, y):
        x0 = (y >= 0).to(x_t)[:, None].expand_as(x_t)
        return Prediction(x0, x0)

    schedule, noise, labels = Cosine(), torch.zeros(2, 1, dtype=F64), torch.tensor([0, 1])
    guided = Feedback(1.0, 0.9, 4.0, tau=0.0)(denoise, schedule)
    scales = [step.x0[0, 0].item() for step in ddim(guided, schedule, noise, uniform_times(schedule, 10), labels)]
    assert scales[0] == pytest.approx(1 / 0.9)
    assert scales[5] == pytest.approx(3.0)
    assert scales[9] == pytest.approx(4.0)
    assert scales == sorted(scales)


@pytest.mark.parametrize("sampler", [ddpm, heun])
def test_a_sample_does_not_depend_on_its_batch(sampler, mixture):
    schedule, noise, labels = mixture.schedule, torch.randn(8, 2, dtype=F64), torch.arange(8) % 3
    scale, times = torch.linspace(0, 3, 8), uniform_times(schedule, 6)

    def samples(rows):
        guided = Feedback(scale[rows])(mixture, schedule)
        *_, last = sampler(guided, schedule, noise[rows], times, labels[rows], SampleNoise(0, rows.tolist()))
        return last.x

    whole = samples(torch.arange(8))
    for rows in (torch.arange(3), torch.arange(3, 8), torch.arange(8).flip(0)):
        torch.testing.assert_close(samples(rows), whole[rows], rtol=0, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_images_are_finite_in_low_precision_and_without_labels(dtype):
    schedule = Cosine()

    def denoise(x_t, t, y):
        return Prediction.from_x0(x_t.tanh() if y is None else (x_t + y[:, None, None, None]).tanh(), x_t, t, schedule)

    noise, times = torch.randn(3, 3, 4, 6, dtype=dtype), uniform_times(schedule, 5)
    for labels in (None, torch.tensor([0, 1, -1])):
        *_, last = ddpm(Feedback(2.0)(denoise, schedule), schedule, noise, times, labels)
        assert last.x.isfinite().all()


def test_rising_times_raise(mixture):
    times = uniform_times(mixture.schedule, 4).flip(0)[1:]
    guided = Feedback(1.0)(mixture, mixture.schedule)
    with pytest.raises(ValueError, match="feedback guidance needs times that fall in each step"):
        next(ddim(guided, mixture.schedule, torch.zeros(1, 2, dtype=F64), times, torch.tensor([0])))


@pytest.mark.parametrize(("guidance", "evaluations"), [(Feedback(1.0), 8), (Feedback(1.0, 1.0), 4), (Feedback(0.0), 8)])
def test_the_evaluations_are_those_counted(guidance, evaluations, mixture, counted):
    schedule, model = Cosine(), counted(mixture)
    list(ddim(guidance(model, schedule), schedule, torch.zeros(1, 2), uniform_times(schedule, 4), torch.tensor([0])))
    assert sum(map(len, model.calls)) == evaluations
    assert evaluations_per_sample(Recipe(guidance, sampler=Sampler(steps=4)), schedule) == evaluations


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pi": 0.0}, r"pi must be in \(0, 1\], got 0.0"),
        ({"lambda_max": 1.0}, "lambda_max must be above 1 and finite, got 1.0"),
        ({"t0": 1.0}, r"t0 must be in \[0, 1\), got 1.0"),
        ({"t1": -0.1}, r"t1 must be in \[0, 1\), got -0.1"),
        ({"tau": -1.0}, "tau must be at least 0 and finite, got -1.0"),
        ({"delta": math.nan}, "delta must be finite, got nan"),
    ],
)
def test_invalid_settings_raise(settings, message):
    with pytest.raises(ValueError, match=message):
        Feedback(**settings)
