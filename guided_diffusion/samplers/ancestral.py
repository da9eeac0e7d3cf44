"""Ancestral sampling: each step draws from the posterior of the forward process (DDPM)."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels
from guided_diffusion.samplers.base import Step, check_falling, check_fraction
from guided_diffusion.samplers.grids import Grid
from guided_diffusion.samplers.noise import Draw
from guided_diffusion.samplers.walk import Walk, begin, predict
from guided_diffusion.schedules import Samples, Schedule


class Posterior(NamedTuple):
    """The normal distribution ``q(x_t' | x_t, x0)``, with the mean ``of_x x_t + of_x0 x0``."""

    of_x: Float[Tensor, ""]
    of_x0: Float[Tensor, ""]
    std: Float[Tensor, ""]


def posterior(schedule: Schedule, t: Float[Tensor, ""], t_next: Float[Tensor, ""], variance: float = 0.0) -> Posterior:
    """Return the distribution of a step of ``ddpm``, whose formula it holds."""
    (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
    a = alpha / alpha_next
    s_squared = sigma**2 - a**2 * sigma_next**2
    std = (s_squared * (sigma_next / sigma) ** (2 * (1 - variance))).sqrt()
    return Posterior(a * sigma_next**2 / sigma**2, alpha_next * s_squared / sigma**2, std)


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
    check_fraction("variance", variance)
    check_falling("ddpm", times)
    walk, x = Walk(times, draw), noise
    denoise = begin(denoise, walk)
    for t, t_next in walk:
        of_x, of_x0, std = posterior(schedule, t, t_next, variance)
        x0 = predict(denoise, walk, x, t, labels).x0
        x = of_x * x + of_x0 * x0
        if t_next > 0:
            x = x + std * draw(x.shape).to(x)
        yield Step(t_next, x, x0)
