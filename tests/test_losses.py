import math
import re

import pytest
import torch
from torch import nn

from guided_diffusion.classifiers import Classifier
from guided_diffusion.denoisers import PARAMETERIZATIONS, UNLABELLED, Denoiser
from guided_diffusion.losses import (
    LogNormalTimes,
    MinSNR,
    Uniform,
    UniformTimes,
    check_times,
    classification_loss,
    denoising_loss,
    drop_labels,
    stratified_times,
)
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
every_parameterization = pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)


class Echo(nn.Module):
    """A wrong network: its output is half its input."""

    def forward(self, x_t, log_snr, y):
        return x_t / 2


def example(schedule, parameterization):
    denoiser = Denoiser(Echo(), schedule, parameterization)
    x0, eps = torch.randn(2, 5, 3, 4, 4, dtype=F64)
    return denoiser, x0, eps, torch.linspace(0.1, 1, 5, dtype=F64)


def test_loss_of_an_eps_network_by_hand(schedule):
    denoiser, x0, eps, t = example(schedule, "eps")
    alpha, sigma = schedule(t)
    loss = denoising_loss(denoiser, x0, None, t, eps, Uniform())
    for i in range(5):
        x_t = alpha[i] * x0[i] + sigma[i] * eps[i]
        torch.testing.assert_close(loss[i], ((x_t / 2 - eps[i]) ** 2).mean(), rtol=1e-12, atol=0)


@every_parameterization
def test_min_snr_is_a_weight_on_the_error_of_the_image(schedule, parameterization):
    denoiser, x0, eps, t = example(schedule, parameterization)
    alpha, sigma = (value[:, None, None, None] for value in schedule(t))
    error = (denoiser(alpha * x0 + sigma * eps, t).x0 - x0).square().mean((1, 2, 3))
    snr = (alpha / sigma).flatten() ** 2
    loss = denoising_loss(denoiser, x0, None, t, eps, MinSNR(5.0))
    torch.testing.assert_close(loss, snr.clamp(max=5) * error, rtol=1e-9, atol=0)


def test_min_snr_weights_by_hand():
    log_snr = torch.tensor([2.0, 8.0], dtype=F64).log()
    weights = {name: MinSNR(5.0)(log_snr, row).tolist() for name, row in PARAMETERIZATIONS.items()}
    assert weights["x0"] == pytest.approx([2, 5])
    assert weights["eps"] == pytest.approx([1, 5 / 8])
    assert weights["v"] == pytest.approx([2 / 3, 5 / 9])


def test_min_snr_without_a_cap_weighs_as_the_eps_loss_does():
    log_snr = torch.linspace(-15, 10, 9, dtype=F64)
    assert torch.equal(MinSNR(math.inf)(log_snr, PARAMETERIZATIONS["eps"]), torch.ones(9, dtype=F64))


@pytest.mark.parametrize("gamma", [0.0, -1.0, math.nan])
def test_min_snr_needs_a_positive_gamma(gamma):
    with pytest.raises(ValueError, match="gamma must be positive"):
        MinSNR(gamma)


def test_the_loss_passes_labels_on(network):
    denoiser = Denoiser(network, Cosine())
    x0, eps, t = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8), torch.full((3,), 0.5)
    labelled = denoising_loss(denoiser, x0, torch.tensor([0, 1, UNLABELLED]), t, eps, Uniform())
    unlabelled = denoising_loss(denoiser, x0, None, t, eps, Uniform())
    assert (labelled != unlabelled).tolist() == [True, True, False]


@pytest.mark.parametrize("batch_size", [1, 2, 64, 1000])
def test_stratified_times_are_one_in_each_stratum(batch_size, generator):
    t = stratified_times(batch_size, generator)
    assert 0 < t.min() <= t.max() <= 1
    assert torch.equal((t * batch_size).ceil(), torch.arange(1.0, batch_size + 1))


def test_stratified_times_are_uniform_and_come_from_the_generator(generator):
    t = torch.stack([stratified_times(4, generator) for _ in range(2000)])
    assert t.mean() == pytest.approx(0.5, abs=5 * math.sqrt(1 / 12 / 16 / 8000))
    assert torch.equal(t[0], stratified_times(4, torch.Generator().manual_seed(0)))


def test_a_draw_of_exactly_zero_is_no_clean_image_and_drops_no_label(monkeypatch, generator):
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.zeros(size))
    assert stratified_times(4, generator).tolist() == [0.25, 0.5, 0.75, 1.0]
    assert drop_labels(torch.arange(4), 0.0, generator).tolist() == [0, 1, 2, 3]


def test_uniform_times_are_the_stratified_ones(schedule):
    drawn = UniformTimes()(8, schedule, torch.Generator().manual_seed(1))
    assert torch.equal(drawn, stratified_times(8, torch.Generator().manual_seed(1)))


def test_noise_levels_of_log_normal_times_have_the_mean_and_standard_deviation_given(schedule, generator):
    t = LogNormalTimes(mean=-0.4, std=0.9)(100_000, schedule, generator)
    log_noise = -schedule.log_snr(t.double()) / 2
    assert log_noise.mean() == pytest.approx(-0.4, abs=1e-3)  # stratified: far better than 1/sqrt(n)
    assert log_noise.std() == pytest.approx(0.9, abs=2e-3)
    quantiles = (log_noise + 0.4) / 0.9
    assert torch.special.ndtr(quantiles).sort().values.sub(torch.linspace(0, 1, 100_000)).abs().max() < 1e-3


def test_log_normal_times_are_one_in_each_part_of_equal_probability(schedule, generator):
    t = LogNormalTimes()(64, schedule, generator)
    probability = torch.special.ndtr((-schedule.log_snr(t.double()) / 2 - 0.3) / 1.1)
    assert torch.equal((probability * 64 - 1e-4).ceil(), torch.arange(1.0, 65, dtype=F64))
    assert (t.diff() > 0).all()
    assert t.dtype == torch.float32


@pytest.mark.parametrize(("mean", "std"), [(7.0, 3.0), (-5.0, 1.0), (-30.0, 10.0)])
def test_log_normal_times_are_in_the_range_of_the_schedule_and_have_a_finite_noise_level(
    mean, std, schedule, generator
):
    t = LogNormalTimes(mean, std)(1000, schedule, generator)
    assert 0 < t.min() <= t.max() <= 1
    assert schedule.log_snr(t).isfinite().all()


def test_a_density_beyond_the_highest_noise_level_is_cut_off_there(schedule, generator):
    highest = -schedule.log_snr(torch.ones((), dtype=F64)) / 2
    log_noise = -schedule.log_snr(LogNormalTimes(highest.item(), 1.0)(100_000, schedule, generator).double()) / 2
    assert log_noise.max() <= highest + 1e-4
    assert log_noise.mean() == pytest.approx(highest.item() - math.sqrt(2 / math.pi), abs=2e-3)  # half a normal density


def test_a_density_above_all_noise_levels_is_refused(schedule, generator):
    with pytest.raises(ValueError, match=r"at most [\d.]+ in this schedule, .* mean 20 and std 0.1: lower the mean"):
        LogNormalTimes(20.0, 0.1)(4, schedule, generator)


def test_a_draw_at_the_end_of_the_density_is_pure_noise(monkeypatch, schedule, generator):
    monkeypatch.setattr(torch, "rand", lambda size, **_: torch.zeros(size))
    assert LogNormalTimes()(4, schedule, generator)[-1] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("time_sampling", [UniformTimes(), LogNormalTimes()])
def test_times_of_every_sampling_suit_every_schedule(time_sampling, schedule):
    check_times(time_sampling, schedule)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (lambda n, *_: torch.linspace(0, 1, n), "times must be in (0, 1], got 0 to 1"),
        (lambda n, *_: torch.full((n,), math.nan), "times must be in (0, 1], got nan to nan"),
        (lambda n, *_: torch.ones(()), "64 samples need as many times, got the shape ()"),
    ],
)
def test_times_that_can_not_be_trained_on_are_refused(times, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_times(times, Cosine())


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"std": 0.0}, "std"), ({"std": math.inf}, "std"), ({"mean": math.nan}, "mean must be finite")],
)
def test_settings_of_log_normal_times_are_checked(settings, message):
    with pytest.raises(ValueError, match=message):
        LogNormalTimes(**settings)


def test_labels_are_dropped_one_by_one_at_the_right_rate(generator):
    y = torch.arange(10_000) % 10
    dropped = drop_labels(y, 0.1, generator) == UNLABELLED
    standard_error = math.sqrt(0.1 * 0.9 / len(y))
    assert dropped.double().mean() == pytest.approx(0.1, abs=5 * standard_error)
    neighbours = (dropped[1:] & dropped[:-1]).double().mean()
    assert neighbours == pytest.approx(0.01, abs=5 * math.sqrt(0.01 / len(y)))


def test_the_number_of_dropped_labels_varies_from_batch_to_batch(generator):
    counts = torch.stack(
        [(drop_labels(torch.zeros(50, dtype=torch.long), 0.2, generator) < 0).sum() for _ in range(500)]
    )
    assert counts.double().var() == pytest.approx(50 * 0.2 * 0.8, rel=5 * math.sqrt(2 / 500))


def test_labels_that_stay_are_what_they_were_and_the_data_is_untouched(generator):
    y = torch.arange(1000) % 10
    kept = drop_labels(y, 0.5, generator)
    assert torch.equal(kept[kept != UNLABELLED], y[kept != UNLABELLED])
    assert torch.equal(y, torch.arange(1000) % 10)


@pytest.mark.parametrize(("probability", "expected"), [(0.0, [0, 1, 2]), (1.0, [UNLABELLED] * 3)])
def test_dropping_none_and_dropping_all_are_exact(probability, expected, generator):
    y = torch.arange(3).repeat(10_000)
    assert torch.equal(drop_labels(y, probability, generator), torch.tensor(expected).repeat(10_000))


def test_dropped_labels_come_from_the_generator_alone():
    y = torch.zeros(100, dtype=torch.long)
    first, second = (drop_labels(y, 0.5, torch.Generator().manual_seed(seed)) for seed in (3, 3))
    assert torch.equal(first, second)
    assert not torch.equal(first, drop_labels(y, 0.5, torch.Generator().manual_seed(4)))


def test_the_classification_loss_is_minus_the_log_posterior(mixture, noisy):
    """Of the exact classifier, on images made noisy as for the denoiser."""
    x0, t, y = noisy
    eps = torch.randn(9, 2, dtype=torch.float64)
    x_t = perturb(x0, eps, t, mixture.schedule)

    class Exact(Classifier):
        def forward(self, x_t, t):
            return mixture.log_posterior(x_t, t)

    losses, logits = classification_loss(Exact(nn.Identity(), mixture.schedule), x0, y, t, eps)
    expected = mixture.log_prob(x_t, t) - mixture.log_prob(x_t, t, y)
    torch.testing.assert_close(losses, expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(logits, mixture.log_posterior(x_t, t))
