"""Single-step methods of higher order, which evaluate the denoiser several times in a step."""

from collections.abc import Iterator

import torch

from guided_diffusion.denoisers import Denoise, Labels
from guided_diffusion.samplers.base import Step
from guided_diffusion.samplers.grids import Grid
from guided_diffusion.samplers.noise import Draw
from guided_diffusion.samplers.walk import Walk, begin, predict
from guided_diffusion.schedules import Samples, Schedule


def heun(
    denoise: Denoise, schedule: Schedule, noise: Samples, times: Grid, labels: Labels = None, draw: Draw = torch.randn
) -> Iterator[Step]:
    """Sample by Heun's method on the flow ``dx/dphi = alpha eps - sigma x0``: second order, two evaluations a step.

    ``phi = atan(sigma / alpha)`` is the angle of the schedule: alpha = cos(phi), sigma = sin(phi). The predictor is a
    DDIM step, and a step to t = 0 has no corrector. This is algorithm 1 of Karras et al. 2022 (arXiv 2206.00364) with
    phi in place of ``sigma / alpha``, which is unbounded.
    """
    walk, x = Walk(times, draw), noise
    denoise = begin(denoise, walk)
    for t, t_next in walk:
        (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0, eps = predict(denoise, walk, x, t, labels)
        x_next = alpha_next * x0 + sigma_next * eps
        if sigma_next > 0:
            x0_next, eps_next = predict(denoise, walk, x_next, t_next, labels)
            velocity, velocity_next = alpha * eps - sigma * x0, alpha_next * eps_next - sigma_next * x0_next
            step = torch.atan2(sigma_next, alpha_next) - torch.atan2(sigma, alpha)
            x_next = x + step * (velocity + velocity_next) / 2
        x = x_next
        yield Step(t_next, x, x0)
