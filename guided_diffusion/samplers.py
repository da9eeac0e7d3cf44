r"""Samplers: from noise to image along an explicit grid of times.

A sampler is a generator function ``sampler(denoise, schedule, noise, times, labels, draw)``. It takes
one step for each pair of neighbouring times and yields after each, so that a progress bar, a trajectory
or an animation is a ``for`` loop. With times that end at t = 0 the last ``Step`` holds the image.

    *_, last = ddim(denoise, schedule, noise, uniform_times(schedule, 25), labels)
    images = last.x

``denoise`` may be guided or not: a sampler cannot tell. Symbols: (alpha, sigma) belong to the time
left, (alpha', sigma') to the time reached.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.validation import check_positive

Draw = Callable[[torch.Size], Tensor]
"""``draw(shape)``: fresh standard normal noise, for samplers that add some on the way."""


class Step(NamedTuple):
    """Where a sampler is after a step."""

    t: Float[Tensor, ""]
    """The time reached."""
    x: Float[Tensor, "b *shape"]
    """The sample at that time."""
    x0: Float[Tensor, "b *shape"]
    """The estimate of the clean image that led there."""


# --------------------------------------------------------------------------------------------------
# Grids of times, decreasing from 1 to 0, in float64
# --------------------------------------------------------------------------------------------------


def uniform_times(schedule: Schedule, steps: int) -> Float[Tensor, "{steps}+1"]:
    """``steps`` equal steps in t. On ``LinearBeta(T)`` with T a multiple of ``steps``: a sub-grid of the DDPM table."""
    return torch.linspace(1, 0, _positive(steps) + 1, dtype=torch.float64)


def log_snr_times(schedule: Schedule, steps: int, log_snr_max: float = 10.0) -> Float[Tensor, "{steps}+1"]:
    """Equal steps in log-SNR from t = 1 up to ``log_snr_max``, then one to t = 0 (Lu et al. 2022, arXiv 2211.01095)."""
    start = schedule.log_snr(torch.ones((), dtype=torch.float64)).item()
    if not start < log_snr_max < math.inf:
        raise ValueError(f"log_snr_max must be finite and above {start:g}, that at t = 1, got {log_snr_max}")
    log_snr = torch.linspace(start, log_snr_max, _positive(steps), dtype=torch.float64)
    return torch.cat([torch.ones(1), schedule.time(log_snr)[1:], torch.zeros(1)])


def karras_times(
    schedule: Schedule, steps: int, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> Float[Tensor, "{steps}+1"]:
    """Equal steps in ``(sigma / alpha)^(1/rho)`` (Karras et al. 2022, arXiv 2206.00364, eq. 5), then one to t = 0.

    ``sigma_max`` is lowered to what the schedule reaches at t = 1; the grid starts at t = 1.
    """
    if not (0 < sigma_min < sigma_max and 0 < rho < math.inf):
        raise ValueError(f"need 0 < sigma_min < sigma_max and 0 < rho, got {sigma_min}, {sigma_max} and rho {rho}")
    largest = (-schedule.log_snr(torch.ones((), dtype=torch.float64)) / 2).exp().clamp(max=sigma_max).item()
    ramp = torch.linspace(largest ** (1 / rho), sigma_min ** (1 / rho), _positive(steps), dtype=torch.float64)
    return torch.cat([torch.ones(1), schedule.time(-2 * rho * ramp.log())[1:], torch.zeros(1)])


def _positive(steps: int) -> int:
    check_positive(steps=steps)
    return steps


# --------------------------------------------------------------------------------------------------
# Samplers
# --------------------------------------------------------------------------------------------------


def ddpm(
    denoise: Denoise,
    schedule: Schedule,
    noise: Float[Tensor, "b *shape"],
    times: Float[Tensor, " times"],
    labels: Labels = None,
    draw: Draw = torch.randn,
    *,
    variance: float = 0.0,
) -> Iterator[Step]:
    """Ancestral sampling from ``q(x_t' | x_t, x0)`` (Ho et al. 2020, arXiv 2006.11239, eq. 6, 7 and 11).

    With ``a = alpha / alpha'`` and ``s^2 = sigma^2 - a^2 sigma'^2``, on any grid:
    ``x' = (a sigma'^2 x + alpha' s^2 x0) / sigma^2 + std draw``.

    ``variance`` is 0 for the small variance ``s^2 sigma'^2 / sigma^2``, 1 for the large one ``s^2``, between for
    the geometric mean with that weight (Nichol & Dhariwal 2021, eq. 15). A step to t = 0 adds no noise.
    """
    _check_fraction("variance", variance)
    x = noise
    for t, t_next in pairwise(times):
        (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0 = denoise(x, _per_sample(t, x), labels).x0
        a = alpha / alpha_next
        s_squared = sigma**2 - a**2 * sigma_next**2
        x = (a * sigma_next**2 / sigma**2) * x + (alpha_next * s_squared / sigma**2) * x0
        if sigma_next > 0:
            x = x + (s_squared * (sigma_next / sigma) ** (2 * (1 - variance))).sqrt() * draw(x.shape).to(x)
        yield Step(t_next, x, x0)


def ddim(
    denoise: Denoise,
    schedule: Schedule,
    noise: Float[Tensor, "b *shape"],
    times: Float[Tensor, " times"],
    labels: Labels = None,
    draw: Draw = torch.randn,
    *,
    eta: float = 0.0,
) -> Iterator[Step]:
    """``x' = alpha' x0 + sqrt(sigma'^2 - std^2) eps + std draw``.

    Song et al. 2021 (arXiv 2010.02502, eq. 12 and 16). ``eta`` is ``std`` in units of the small ancestral
    deviation: 0 is the deterministic flow, 1 is ``ddpm``.
    """
    _check_fraction("eta", eta)
    x = noise
    for t, t_next in pairwise(times):
        (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0, eps = denoise(x, _per_sample(t, x), labels)
        std = eta * (sigma_next / sigma) * (sigma**2 - (alpha / alpha_next) ** 2 * sigma_next**2).sqrt()
        x = alpha_next * x0 + (sigma_next**2 - std**2).sqrt() * eps
        if std > 0:
            x = x + std * draw(x.shape).to(x)
        yield Step(t_next, x, x0)


def heun(
    denoise: Denoise,
    schedule: Schedule,
    noise: Float[Tensor, "b *shape"],
    times: Float[Tensor, " times"],
    labels: Labels = None,
    draw: Draw = torch.randn,
) -> Iterator[Step]:
    """Heun's method on the flow ``dx/dphi = alpha eps - sigma x0 = v``: second order, two evaluations a step.

    ``phi = atan(sigma / alpha)`` is the angle: alpha = cos(phi), sigma = sin(phi). Karras et al. 2022
    (arXiv 2206.00364, algorithm 1) with phi in place of ``sigma / alpha``, which has no bound; the first
    guess at the new point is a DDIM step, and a step to t = 0 is no more than that.
    """
    x = noise
    for t, t_next in pairwise(times):
        (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0, eps = denoise(x, _per_sample(t, x), labels)
        x_next = alpha_next * x0 + sigma_next * eps
        if sigma_next > 0:
            x0_next, eps_next = denoise(x_next, _per_sample(t_next, x), labels)
            velocity, velocity_next = alpha * eps - sigma * x0, alpha_next * eps_next - sigma_next * x0_next
            step = torch.atan2(sigma_next, alpha_next) - torch.atan2(sigma, alpha)
            x_next = x + step * (velocity + velocity_next) / 2
        x = x_next
        yield Step(t_next, x, x0)


def dpmpp_2m(
    denoise: Denoise,
    schedule: Schedule,
    noise: Float[Tensor, "b *shape"],
    times: Float[Tensor, " times"],
    labels: Labels = None,
    draw: Draw = torch.randn,
) -> Iterator[Step]:
    """DPM-Solver++(2M): second order from one evaluation a step (Lu et al. 2022, arXiv 2211.01095, algorithm 2).

    With ``h`` the step in half the log-SNR and ``r`` the last ``h`` over this one:
    ``x' = (sigma' / sigma) x - alpha' (e^-h - 1) ((1 + 1/2r) x0 - 1/2r x0_last)``.
    The first step, and one to t = 0, are of first order.
    """
    x, x0_last, h_last = noise, None, None
    for t, t_next in pairwise(times):
        (_, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0 = denoise(x, _per_sample(t, x), labels).x0
        h = (schedule.log_snr(t_next) - schedule.log_snr(t)) / 2
        extrapolated = x0
        if x0_last is not None and h_last is not None and sigma_next > 0:
            extrapolated = x0 + (h / h_last / 2) * (x0 - x0_last)
        x = (sigma_next / sigma) * x - alpha_next * torch.expm1(-h) * extrapolated
        x0_last, h_last = x0, h
        yield Step(t_next, x, x0)


def _check_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def _per_sample(t: Float[Tensor, ""], x: Float[Tensor, "b *shape"]) -> Float[Tensor, " b"]:
    return t.to(x).expand(len(x))


@dataclass(frozen=True)
class Sampler:
    """A method with its number of steps: what a config names and a checkpoint is sampled with.

    Args:
        method: one of the samplers of this module, its own settings bound.
        steps: how many steps.
        times: ``times(schedule, steps)``, the grid.

    Raises:
        ValueError: unless ``steps`` is at least 1.
    """

    method: Callable[..., Iterator[Step]] = ddim
    steps: int = 25
    times: Callable[[Schedule, int], Tensor] = uniform_times

    def __post_init__(self) -> None:
        _positive(self.steps)

    def __call__(
        self,
        denoise: Denoise,
        schedule: Schedule,
        noise: Float[Tensor, "b *shape"],
        labels: Labels = None,
        draw: Draw = torch.randn,
    ) -> Iterator[Step]:
        return self.method(denoise, schedule, noise, self.times(schedule, self.steps), labels, draw)


# --------------------------------------------------------------------------------------------------
# Noise that belongs to a sample
# --------------------------------------------------------------------------------------------------


class SampleNoise:
    """Standard normal noise for samples ``indices``: each from a generator of its own, made of (seed, index).

    What a sample gets depends neither on the batch it is in nor on the device: numbers are drawn on the
    CPU. Samples of one index get the same noise, which is how a sweep over scales shares it.

    Args:
        seed: of the whole run.
        indices: the number of each sample of the batch in the whole run.
    """

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        order = {index: row for row, index in enumerate(dict.fromkeys(indices))}
        self._generators = [torch.Generator().manual_seed(_generator_seed(seed, index)) for index in order]
        self._rows = torch.tensor([order[index] for index in indices])

    def __call__(self, shape: Sequence[int]) -> Float[Tensor, "b *shape"]:
        """The next noise of each sample; ``shape`` is that of the batch."""
        unique = torch.stack([torch.randn(tuple(shape[1:]), generator=generator) for generator in self._generators])
        return unique[self._rows]


def _generator_seed(seed: int, index: int) -> int:
    """Distinct for distinct indices: the CPU generator keeps 32 bits of a seed, in which hashes would collide."""
    base = torch.randint(2**32, (), generator=torch.Generator().manual_seed(seed)).item()
    return int(base + index) % 2**32
