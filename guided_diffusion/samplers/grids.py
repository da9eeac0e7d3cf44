"""Grids of times: which times a sampler visits between noise (t = 1) and sample (t = 0)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.validation import check_positive

Grid = Float[Tensor, " times"]
"""A grid of times: it falls from 1 to 0 to sample, and rises to find the noise of samples."""


def uniform_times(schedule: Schedule, steps: int) -> Float[Tensor, "{steps}+1"]:
    """Return times in equal steps of t; if ``steps`` divides T, they are among the times k/T of ``LinearBeta(T)``."""
    return torch.linspace(1, 0, _positive(steps) + 1, dtype=torch.float64)


def log_snr_times(schedule: Schedule, steps: int, log_snr_max: float = 10.0) -> Float[Tensor, "{steps}+1"]:
    """Return times in equal steps of log-SNR from t = 1 up to ``log_snr_max``, and then t = 0.

    See Lu et al. 2022 (arXiv 2211.01095).

    Raises:
        ValueError: If ``steps`` is below 1, or ``log_snr_max`` is not finite or not above the log-SNR at t = 1.
    """
    start = schedule.log_snr(torch.ones((), dtype=torch.float64)).item()
    if not start < log_snr_max < math.inf:
        raise ValueError(f"log_snr_max must be finite and above {start:g}, that at t = 1, got {log_snr_max}")
    log_snr = torch.linspace(start, log_snr_max, _positive(steps), dtype=torch.float64)
    return torch.cat([torch.ones(1), schedule.time(log_snr)[1:], torch.zeros(1)])


def karras_times(
    schedule: Schedule, steps: int, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> Float[Tensor, "{steps}+1"]:
    """Return times in equal steps of ``(sigma / alpha)^(1/rho)`` down to ``sigma_min``, and then t = 0.

    The grid (Karras et al. 2022, arXiv 2206.00364, eq. 5) starts at t = 1; a ``sigma_max`` above the noise level
    there is lowered to it.

    Raises:
        ValueError: If ``steps`` is below 1, rho is not positive and finite, or sigma_min is not positive, below
            sigma_max and below the noise level at t = 1.
    """
    if not (0 < sigma_min < sigma_max and 0 < rho < math.inf):
        raise ValueError(f"need 0 < sigma_min < sigma_max and 0 < rho, got {sigma_min}, {sigma_max} and rho {rho}")
    largest = (-schedule.log_snr(torch.ones((), dtype=torch.float64)) / 2).exp().clamp(max=sigma_max).item()
    if sigma_min >= largest:
        raise ValueError(f"sigma_min must be below {largest:g}, the noise level at t = 1, got {sigma_min}")
    ramp = torch.linspace(largest ** (1 / rho), sigma_min ** (1 / rho), _positive(steps), dtype=torch.float64)
    return torch.cat([torch.ones(1), schedule.time(-2 * rho * ramp.log())[1:], torch.zeros(1)])


def shifted_times(schedule: Schedule, steps: int, shift: float = 3.0) -> Float[Tensor, "{steps}+1"]:
    """Return the uniform times moved to more noise, where a ``shift`` above 1 makes the steps finer.

    A noise level ``r = sigma / alpha`` of the uniform grid becomes ``shift r / (1 + (shift - 1) r / R)``, where R is
    the level at t = 1: nearly ``shift r`` where r is much smaller than R, and t = 1 stays. This is the timestep shift
    of Esser et al. 2024 (arXiv 2403.03206, eq. 23), a log-SNR lowered by ``2 log(shift)``, for a schedule whose noise
    at t = 1 is finite.

    Args:
        schedule: The noise schedule.
        steps: The number of steps.
        shift: The factor of the noise level: 1 is the uniform grid, below 1 moves it to less noise.

    Raises:
        ValueError: If ``steps`` is below 1, or ``shift`` is not positive and finite.
    """
    if not 0 < shift < math.inf:
        raise ValueError(f"shift must be positive and finite, got {shift}")
    times = uniform_times(schedule, steps)
    if shift == 1:
        return times
    r = (-schedule.log_snr(times[:-1]) / 2).exp()
    shifted = shift * r / (1 + (shift - 1) * r / r[0])
    return torch.cat([times[:1], schedule.time(-2 * shifted[1:].log()), times[-1:]])


def times_from(start: float, times: Grid) -> Float[Tensor, " fewer"]:
    """Return the part of a falling grid below the time ``start``, in (0, 1], with ``start`` as its first time."""
    return torch.cat([times.new_tensor([start]), times[times < start - 1e-9]])


def _positive(steps: int) -> int:
    check_positive(steps=steps)
    return steps
