"""Multistep methods, which use the estimate of the last step: DPM-Solver++(2M), as a flow and with noise."""

from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels
from guided_diffusion.samplers.base import Step, check_falling
from guided_diffusion.samplers.grids import Grid
from guided_diffusion.samplers.noise import Draw
from guided_diffusion.samplers.walk import Walk, begin, predict
from guided_diffusion.schedules import Samples, Schedule

Scalar = Float[Tensor, ""]


def dpmpp_2m(
    denoise: Denoise, schedule: Schedule, noise: Samples, times: Grid, labels: Labels = None, draw: Draw = torch.randn
) -> Iterator[Step]:
    """Sample by DPM-Solver++(2M): second order, one evaluation a step.

    ``x' = (sigma' / sigma) x - alpha' (e^-h - 1) ((1 + 1/2r) x0 - 1/2r x0_last)``, where ``h`` is the step in half
    the log-SNR and ``r`` the last ``h`` divided by this one (Lu et al. 2022, arXiv 2211.01095, algorithm 2). The first
    step and those to and from t = 0 are of first order.
    """
    walk, x, last = Walk(times, draw), noise, None
    denoise = begin(denoise, walk)
    for t, t_next in walk:
        (_, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0, eps = predict(denoise, walk, x, t, labels)
        h = (schedule.log_snr(t_next) - schedule.log_snr(t)) / 2
        if sigma > 0:
            extrapolated = _extrapolate(x0, h, last if sigma_next > 0 else None)
            x = (sigma_next / sigma) * x - alpha_next * torch.expm1(-h) * extrapolated
        else:
            x = alpha_next * x0 + sigma_next * eps
        last = x0, h
        yield Step(t_next, x, x0)


def sde_dpmpp_2m(
    denoise: Denoise, schedule: Schedule, noise: Samples, times: Grid, labels: Labels = None, draw: Draw = torch.randn
) -> Iterator[Step]:
    """Sample by SDE-DPM-Solver++(2M): ``dpmpp_2m`` with new noise in each step, one evaluation a step.

    ``x' = (sigma' / sigma) e^-h x + alpha' (1 - e^-2h) D + sigma' sqrt(1 - e^-2h) draw``, with ``h`` and
    ``D = (1 + 1/2r) x0 - 1/2r x0_last`` as in ``dpmpp_2m`` (Lu et al. 2022, arXiv 2211.01095, section 5). The first
    step and that to t = 0 are of first order, which is a step of ``ddpm`` with the small variance.
    """
    check_falling("sde_dpmpp_2m", times)
    walk, x, last = Walk(times, draw), noise, None
    denoise = begin(denoise, walk)
    for t, t_next in walk:
        (_, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0 = predict(denoise, walk, x, t, labels).x0
        h = (schedule.log_snr(t_next) - schedule.log_snr(t)) / 2
        extrapolated = _extrapolate(x0, h, last if sigma_next > 0 else None)
        share_of_new = -torch.expm1(-2 * h)
        x = (sigma_next / sigma) * (-h).exp() * x + alpha_next * share_of_new * extrapolated
        if sigma_next > 0:
            x = x + sigma_next * share_of_new.sqrt() * draw(x.shape).to(x)
        last = x0, h
        yield Step(t_next, x, x0)


def _extrapolate(x0: Samples, h: Scalar, last: tuple[Samples, Scalar] | None) -> Samples:
    """Return the estimate of x0 in the middle of a step ``h`` from this one and the last, or this one without a last.

    ``last`` is the last estimate and the step that it was made for.
    """
    if last is None:
        return x0
    x0_last, h_last = last
    return x0 + (h / h_last / 2) * (x0 - x0_last)
