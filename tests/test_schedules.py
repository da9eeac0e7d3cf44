import math

import pytest
import torch

from guided_diffusion.schedules import Cosine, LinearBeta, expand_as, perturb

F32, F64 = torch.float32, torch.float64
every_schedule = pytest.mark.parametrize("schedule", [Cosine(), Cosine(-50), LinearBeta(), LinearBeta(7)], ids=str)
both_precisions = pytest.mark.parametrize(("dtype", "atol"), [(F32, 1e-6), (F64, 1e-12)], ids=["f32", "f64"])


@every_schedule
@both_precisions
def test_variance_is_preserved(schedule, dtype, atol):
    alpha, sigma = schedule(torch.linspace(0, 1, 101, dtype=dtype))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(101, dtype=dtype), rtol=0, atol=atol)


@every_schedule
def test_log_snr_is_the_log_of_the_ratio(schedule):
    t = torch.linspace(0.01, 1, 100, dtype=F64)
    alpha, sigma = schedule(t)
    torch.testing.assert_close(2 * (alpha / sigma).log(), schedule.log_snr(t), rtol=1e-12, atol=1e-12)


@every_schedule
@both_precisions
def test_log_snr_strictly_decreases_and_is_finite_but_at_zero(schedule, dtype, atol):
    log_snr = schedule.log_snr(torch.linspace(0, 1, 1001, dtype=dtype))
    assert (log_snr.diff() < 0).all()
    assert log_snr[0] == math.inf
    assert log_snr[1:].isfinite().all()


@every_schedule
@both_precisions
def test_time_inverts_log_snr(schedule, dtype, atol):
    t = torch.linspace(0, 1, 1001, dtype=dtype)
    torch.testing.assert_close(schedule.time(schedule.log_snr(t)), t, rtol=0, atol=2 * atol)


@every_schedule
def test_log_snr_inverts_time(schedule):
    log_snr = torch.linspace(10, schedule.log_snr(torch.ones((), dtype=F64)).item(), 50, dtype=F64)
    torch.testing.assert_close(schedule.log_snr(schedule.time(log_snr)), log_snr, rtol=1e-4, atol=1e-9)


@every_schedule
def test_an_image_is_clean_at_time_zero(schedule):
    assert schedule(torch.tensor(0.0)) == (1, 0)


@every_schedule
def test_times_may_have_any_shape(schedule):
    t = torch.rand(2, 3)
    for function in (schedule.log_snr, schedule.time, lambda t: schedule(t)[0]):
        torch.testing.assert_close(function(t)[1, 2], function(t[1, 2]), rtol=0, atol=0)


def test_cosine_is_a_cosine():
    t = torch.linspace(0, 1, 101, dtype=F64)
    alpha, sigma = Cosine(-15)(t)
    angle = math.atan(math.exp(7.5)) * t
    torch.testing.assert_close(alpha, angle.cos(), rtol=0, atol=1e-12)
    torch.testing.assert_close(sigma, angle.sin(), rtol=0, atol=1e-12)


@both_precisions
@pytest.mark.parametrize("log_snr_min", [-1e-3, -15, -34, -40, -50])
def test_cosine_ends_at_log_snr_min(log_snr_min, dtype, atol):
    log_snr = Cosine(log_snr_min).log_snr(torch.ones((), dtype=dtype))
    assert log_snr.item() == pytest.approx(log_snr_min, rel=atol, abs=atol)


def test_linear_beta_is_the_ddpm_table_on_its_grid():
    alpha, sigma = LinearBeta(1000)(torch.arange(1, 1001, dtype=F64) / 1000)
    table = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=F64), 0)
    torch.testing.assert_close(alpha**2, table, rtol=0, atol=1e-12)
    torch.testing.assert_close(sigma**2, 1 - table, rtol=0, atol=1e-12)


def test_linear_beta_is_log_linear_between_the_points_of_its_grid():
    log_alpha = LinearBeta(10)(torch.tensor([0.3, 0.325, 0.4], dtype=F64))[0].log()
    torch.testing.assert_close(log_alpha[1], 0.75 * log_alpha[0] + 0.25 * log_alpha[2], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Cosine(0.0), r"log_snr_min must be in \[-50, 0\), got 0"),
        (lambda: Cosine(-51.0), r"log_snr_min must be in \[-50, 0\), got -51"),
        (lambda: Cosine(math.nan), "log_snr_min must be in"),
        (lambda: LinearBeta(0), "num_timesteps must be at least 1, got 0"),
        (lambda: LinearBeta(beta_start=0.0), "0 < beta_start <= beta_end < 1"),
        (lambda: LinearBeta(beta_start=0.03), "got 0.03 and 0.02"),
        (lambda: LinearBeta(beta_end=1.0), "0 < beta_start <= beta_end < 1"),
    ],
)
def test_impossible_settings_raise(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_expand_as_appends_axes_of_size_one():
    assert expand_as(torch.zeros(4), torch.zeros(4, 3, 2, 2)).shape == (4, 1, 1, 1)
    assert expand_as(torch.tensor(1.0), torch.zeros(4, 3)).shape == (1, 1)


def test_perturb_mixes_each_image_with_noise_at_its_own_time(schedule):
    x0, eps, t = torch.randn(3, 2, 4, 4), torch.randn(3, 2, 4, 4), torch.tensor([0.0, 0.4, 1.0])
    alpha, sigma = schedule(t)
    x_t = perturb(x0, eps, t, schedule)
    assert torch.equal(x_t[0], x0[0])
    for i in (1, 2):
        torch.testing.assert_close(x_t[i], alpha[i] * x0[i] + sigma[i] * eps[i])
