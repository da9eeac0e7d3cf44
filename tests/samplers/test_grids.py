import math

import pytest
import torch

from guided_diffusion.samplers import karras_times, log_snr_times, shifted_times, times_from, uniform_times
from guided_diffusion.schedules import Cosine, LinearBeta

F64 = torch.float64
every_grid = pytest.mark.parametrize("times", [uniform_times, log_snr_times, karras_times, shifted_times])


@every_grid
@pytest.mark.parametrize("steps", [1, 2, 25, 1000])
@pytest.mark.parametrize("schedule", [Cosine(), Cosine(-50), LinearBeta()], ids=str)
def test_a_grid_decreases_from_one_to_zero(times, steps, schedule):
    grid = times(schedule, steps)
    assert len(grid) == steps + 1
    assert (grid[0], grid[-1]) == (1, 0)
    assert (grid.diff() < 0).all()
    assert grid.dtype == F64


@every_grid
@pytest.mark.parametrize("steps", [0, -3])
def test_a_time_grid_with_fewer_than_one_step_raises(times, steps):
    with pytest.raises(ValueError, match=f"steps must be at least 1, got {steps}"):
        times(Cosine(), steps)


def test_uniform_times_are_a_sub_grid_of_the_table():
    torch.testing.assert_close(uniform_times(LinearBeta(1000), 4), torch.tensor([1, 0.75, 0.5, 0.25, 0], dtype=F64))


def test_log_snr_times_are_equal_steps_in_log_snr(schedule):
    log_snr = schedule.log_snr(log_snr_times(schedule, 11)[:-1])
    expected = torch.linspace(schedule.log_snr(torch.ones((), dtype=F64)).item(), 10, 11, dtype=F64)
    torch.testing.assert_close(log_snr, expected, rtol=0, atol=1e-8)


def test_karras_times_are_equal_steps_in_a_root_of_the_noise(schedule):
    root = (-schedule.log_snr(karras_times(schedule, 11)[1:-1]) / 2).exp() ** (1 / 7)
    torch.testing.assert_close(root.diff(), root.diff().mean().expand(9), rtol=1e-9, atol=0)
    assert root[-1] ** 7 == pytest.approx(0.002)
    assert root[0] + (root[0] - root[1]) == pytest.approx(80 ** (1 / 7))


def test_karras_times_below_a_noise_level_that_the_schedule_does_not_reach_raise(schedule):
    largest = (-schedule.log_snr(torch.ones((), dtype=F64)) / 2).exp().item()
    with pytest.raises(ValueError, match=r"sigma_min must be below .*, the noise level at t = 1, got"):
        karras_times(schedule, 5, sigma_min=2 * largest, sigma_max=3 * largest)


@pytest.mark.parametrize(("start", "expected"), [(1.0, 25), (0.6, 15), (0.59, 15), (0.001, 1)])
def test_a_grid_from_a_later_time_begins_there_and_keeps_the_times_below(start, expected):
    times = times_from(start, uniform_times(Cosine(), 25))
    assert times[0] == start
    assert (times.diff() < 0).all()
    assert len(times) == expected + 1


def noise_levels(schedule, times):
    """sigma / alpha at each time."""
    return (-schedule.log_snr(times) / 2).exp()


@pytest.mark.parametrize("shift", [0.2, 3.0, 10.0])
def test_a_shift_multiplies_the_noise_levels_of_the_uniform_grid(shift):
    schedule = Cosine(-40)  # whose noise level at t = 1 is far above all others
    uniform, shifted = (grid[1:-1] for grid in (uniform_times(schedule, 10), shifted_times(schedule, 10, shift)))
    ratio = noise_levels(schedule, shifted) / noise_levels(schedule, uniform)
    torch.testing.assert_close(ratio, torch.full((9,), shift, dtype=F64), rtol=1e-6, atol=0)
    moved = schedule.log_snr(shifted) - schedule.log_snr(uniform)
    torch.testing.assert_close(moved, torch.full((9,), -2 * math.log(shift), dtype=F64), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [0.2, 3.0, 10.0])
def test_a_shift_is_that_of_the_time_of_rectified_flow_up_to_the_noise_at_time_one(shift):
    """In the time ``u = sigma / (alpha + sigma)`` of rectified flow it is ``shift u / (1 + (shift - 1) u)``."""
    schedule = Cosine(-40)
    u, shifted = (
        grid / (1 + grid)
        for grid in (noise_levels(schedule, times(schedule, 10)[:-1]) for times in (uniform_times, shifted_grid(shift)))
    )
    torch.testing.assert_close(shifted, shift * u / (1 + (shift - 1) * u), rtol=0, atol=1e-7)


def shifted_grid(shift):
    return lambda schedule, steps: shifted_times(schedule, steps, shift)


def test_a_shift_of_one_is_the_uniform_grid_to_the_bit(schedule):
    assert torch.equal(shifted_times(schedule, 25, 1.0), uniform_times(schedule, 25))


def test_a_shift_of_one_over_another_undoes_it(schedule):
    """Shifts form a group: levels shifted by s and then by 1/s are as before."""
    level, largest = (noise_levels(schedule, torch.tensor(t, dtype=F64)) for t in (0.6, 1.0))

    def shifted(r, shift):
        return shift * r / (1 + (shift - 1) * r / largest)

    found = noise_levels(schedule, shifted_times(schedule, 5, 4.0)[2])
    torch.testing.assert_close(shifted(found, 0.25), level, rtol=1e-9, atol=0)


@pytest.mark.parametrize("steps", [10, 25])
def test_a_shift_above_one_spends_more_steps_at_high_noise(steps, schedule):
    above = [(noise_levels(schedule, shifted_times(schedule, steps, s)[:-1]) > 4).sum() for s in (0.5, 1, 2, 4)]
    assert above == sorted(above)
    assert above[0] < above[1] < above[3]


@pytest.mark.parametrize("shift", [1e-3, 0.5, 30.0])
@pytest.mark.parametrize("schedule", [Cosine(), Cosine(-50), Cosine(-1), LinearBeta()], ids=str)
def test_any_shift_falls_from_one_to_zero(shift, schedule):
    grid = shifted_times(schedule, 1000, shift)
    assert (len(grid), grid[0], grid[-1]) == (1001, 1, 0)
    assert (grid.diff() < 0).all()


@pytest.mark.parametrize("shift", [0.0, -1.0, math.inf, math.nan])
def test_a_shift_that_is_no_positive_number_raises(shift):
    with pytest.raises(ValueError, match=f"shift must be positive and finite, got {shift}"):
        shifted_times(Cosine(), 10, shift)
