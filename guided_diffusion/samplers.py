r"""Samplers from noise to samples along a grid of times, the grids themselves, and the noise of each sample.

A sampler is a generator function ``sampler(denoise, schedule, noise, times, labels, draw)`` that yields a ``Step``
for each pair of neighbouring times, so a progress bar or an animation is a ``for`` loop. If the times end at t = 0, the
last step holds the samples:

    *_, last = ddim(denoise, schedule, noise, uniform_times(schedule, 25), labels)
    images = last.x

Along rising times a sampler that draws no noise goes the other way, from samples to the noise that they come from.

Symbols: (alpha, sigma) belong to the time before the step and (alpha', sigma') to the time after it.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.schedules import Samples, Schedule, to_device
from guided_diffusion.utils.validation import check_positive

Draw = Callable[[torch.Size], Tensor]
"""``draw(shape)`` returns new standard normal noise, for samplers that add noise in a step."""

Grid = Float[Tensor, " times"]
"""A grid of times: it falls from 1 to 0 to sample, and rises to find the noise of samples."""


class Step(NamedTuple):
    """The state of a sampler after a step."""

    t: Float[Tensor, ""]
    """The time after the step."""
    x: Samples
    """The samples at that time."""
    x0: Samples
    """The estimates of the clean samples from which the step was made."""


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
        ValueError: If ``steps`` is below 1, 0 < sigma_min < sigma_max does not hold, or rho is not positive and finite.
    """
    if not (0 < sigma_min < sigma_max and 0 < rho < math.inf):
        raise ValueError(f"need 0 < sigma_min < sigma_max and 0 < rho, got {sigma_min}, {sigma_max} and rho {rho}")
    largest = (-schedule.log_snr(torch.ones((), dtype=torch.float64)) / 2).exp().clamp(max=sigma_max).item()
    ramp = torch.linspace(largest ** (1 / rho), sigma_min ** (1 / rho), _positive(steps), dtype=torch.float64)
    return torch.cat([torch.ones(1), schedule.time(-2 * rho * ramp.log())[1:], torch.zeros(1)])


def times_from(start: float, times: Grid) -> Float[Tensor, " fewer"]:
    """Return the part of a falling grid below the time ``start``, in (0, 1], with ``start`` as its first time."""
    return torch.cat([times.new_tensor([start]), times[times < start - 1e-9]])


def _positive(steps: int) -> int:
    check_positive(steps=steps)
    return steps


def ddpm(
    denoise: Denoise,
    schedule: Schedule,
    noise: Samples,
    times: Grid,
    labels: Labels = None,
    draw: Draw = torch.randn,
    *,
    variance: float = 0.0,
) -> Iterator[Step]:
    """Sample by ancestral sampling, on any grid: each step draws from ``q(x_t' | x_t, x0)``.

    ``x' = (a sigma'^2 x + alpha' s^2 x0) / sigma^2 + std draw``, with ``a = alpha / alpha'`` and
    ``s^2 = sigma^2 - a^2 sigma'^2``. A step to t = 0 adds no noise.

    A ``variance`` of 0 gives the small ``std^2 = s^2 sigma'^2 / sigma^2`` and 1 the large ``std^2 = s^2``; a value
    between is the weight of the large one in their geometric mean. See Ho et al. 2020 (arXiv 2006.11239), eq. 6, 7 and
    11, and Nichol & Dhariwal 2021 (arXiv 2102.09672), eq. 15.
    """
    _check_fraction("variance", variance)
    _check_falling("ddpm", times)
    x = noise
    for t, t_next in pairwise(times):
        (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0 = _predict(denoise, x, t, t_next, labels).x0
        a = alpha / alpha_next
        s_squared = sigma**2 - a**2 * sigma_next**2
        x = (a * sigma_next**2 / sigma**2) * x + (alpha_next * s_squared / sigma**2) * x0
        if sigma_next > 0:
            x = x + (s_squared * (sigma_next / sigma) ** (2 * (1 - variance))).sqrt() * draw(x.shape).to(x)
        yield Step(t_next, x, x0)


def ddim(
    denoise: Denoise,
    schedule: Schedule,
    noise: Samples,
    times: Grid,
    labels: Labels = None,
    draw: Draw = torch.randn,
    *,
    eta: float = 0.0,
) -> Iterator[Step]:
    """Sample by DDIM: ``x' = alpha' x0 + sqrt(sigma'^2 - std^2) eps + std draw``.

    ``eta`` is the ratio of ``std`` to that of ``ddpm`` with the small variance: 0 is the deterministic flow and
    1 is ``ddpm`` (Song et al. 2021, arXiv 2010.02502, eq. 12 and 16). With 0 the times may rise: DDIM inversion
    (eq. 14).
    """
    _check_fraction("eta", eta)
    if eta > 0:
        _check_falling(f"ddim with eta={eta:g}", times)
    x = noise
    for t, t_next in pairwise(times):
        (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0, eps = _predict(denoise, x, t, t_next, labels)
        std = torch.zeros_like(sigma)
        if eta > 0:
            std = eta * (sigma_next / sigma) * (sigma**2 - (alpha / alpha_next) ** 2 * sigma_next**2).sqrt()
        x = alpha_next * x0 + (sigma_next**2 - std**2).sqrt() * eps
        if std > 0:
            x = x + std * draw(x.shape).to(x)
        yield Step(t_next, x, x0)


def heun(
    denoise: Denoise, schedule: Schedule, noise: Samples, times: Grid, labels: Labels = None, draw: Draw = torch.randn
) -> Iterator[Step]:
    """Sample by Heun's method on the flow ``dx/dphi = alpha eps - sigma x0``: second order, two evaluations a step.

    ``phi = atan(sigma / alpha)`` is the angle of the schedule: alpha = cos(phi), sigma = sin(phi). The predictor is a
    DDIM step, and a step to t = 0 has no corrector. This is algorithm 1 of Karras et al. 2022 (arXiv 2206.00364) with
    phi in place of ``sigma / alpha``, which is unbounded.
    """
    x = noise
    for t, t_next in pairwise(times):
        (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0, eps = _predict(denoise, x, t, t_next, labels)
        x_next = alpha_next * x0 + sigma_next * eps
        if sigma_next > 0:
            x0_next, eps_next = _predict(denoise, x_next, t_next, t, labels)
            velocity, velocity_next = alpha * eps - sigma * x0, alpha_next * eps_next - sigma_next * x0_next
            step = torch.atan2(sigma_next, alpha_next) - torch.atan2(sigma, alpha)
            x_next = x + step * (velocity + velocity_next) / 2
        x = x_next
        yield Step(t_next, x, x0)


def dpmpp_2m(
    denoise: Denoise, schedule: Schedule, noise: Samples, times: Grid, labels: Labels = None, draw: Draw = torch.randn
) -> Iterator[Step]:
    """Sample by DPM-Solver++(2M): second order, one evaluation a step.

    ``x' = (sigma' / sigma) x - alpha' (e^-h - 1) ((1 + 1/2r) x0 - 1/2r x0_last)``, where ``h`` is the step in half
    the log-SNR and ``r`` the last ``h`` divided by this one (Lu et al. 2022, arXiv 2211.01095, algorithm 2). The first
    step and those to and from t = 0 are of first order.
    """
    x, x0_last, h_last = noise, None, None
    for t, t_next in pairwise(times):
        (_, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0, eps = _predict(denoise, x, t, t_next, labels)
        h = (schedule.log_snr(t_next) - schedule.log_snr(t)) / 2
        extrapolated = x0
        if x0_last is not None and h_last is not None and sigma_next > 0:
            extrapolated = x0 + (h / h_last / 2) * (x0 - x0_last)
        if sigma > 0:
            x = (sigma_next / sigma) * x - alpha_next * torch.expm1(-h) * extrapolated
        else:
            x = alpha_next * x0 + sigma_next * eps
        x0_last, h_last = x0, h
        yield Step(t_next, x, x0)


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def _check_falling(name: str, times: Grid) -> None:
    if (times.diff() > 0).any():
        raise ValueError(
            f"{name} adds noise in each step, so it can't go along rising times, from samples to noise: "
            "use ddim with eta=0, heun or dpmpp_2m"
        )


def _predict(denoise: Denoise, x: Samples, t: Float[Tensor, ""], neighbour: Float[Tensor, ""], y: Labels) -> Prediction:
    """Return the prediction at time t. At t = 0 a sample is its own x0, and eps is that of the neighbouring time."""
    if t > 0:
        return denoise(x, _one_per_sample(t, x), y)
    return Prediction(x, denoise(x, _one_per_sample(neighbour, x), y).eps)


def _one_per_sample(t: Float[Tensor, ""], x: Samples) -> Float[Tensor, " b"]:
    return to_device(t.to(x.dtype), x).expand(len(x))


@dataclass(frozen=True)
class Sampler:
    """A sampling method and its grid of times, ``times(schedule, steps)``, with ``steps`` at least 1.

    ``method`` is a sampler of this module, with its settings bound by ``functools.partial``.
    """

    method: Callable[..., Iterator[Step]] = ddim
    steps: int = 25
    times: Callable[[Schedule, int], Tensor] = uniform_times

    def __post_init__(self) -> None:
        _positive(self.steps)

    def __call__(
        self, denoise: Denoise, schedule: Schedule, noise: Samples, labels: Labels = None, draw: Draw = torch.randn
    ) -> Iterator[Step]:
        return self.method(denoise, schedule, noise, self.times(schedule, self.steps), labels, draw)


class SampleNoise:
    """Standard normal noise for a batch, drawn for each sample from a generator of its own, seeded by (seed, index).

    It is drawn on the CPU, so the noise of a sample depends neither on its batch nor on the device. Samples with the
    same index get the same noise, which is how a sweep over scales shares it.
    """

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        order = {index: row for row, index in enumerate(dict.fromkeys(indices))}
        self._generators = [torch.Generator().manual_seed(_generator_seed(seed, index)) for index in order]
        self._rows = torch.tensor([order[index] for index in indices])

    def __call__(self, shape: Sequence[int]) -> Samples:
        """Return the next noise of each sample; ``shape`` is that of the batch."""
        draws = (torch.randn(tuple(shape[1:]), generator=one, dtype=torch.float32) for one in self._generators)
        unique = torch.stack(list(draws))
        return unique[self._rows]


def _generator_seed(seed: int, index: int) -> int:
    """Return a 32-bit seed, as the CPU generator keeps no more; unlike hashes, those of two indices never collide."""
    base = torch.randint(2**32, (), generator=torch.Generator().manual_seed(seed)).item()
    return int(base + index) % 2**32
