"""Denoising diffusion implicit models (DDIM): from the deterministic flow to ancestral sampling."""

from collections.abc import Iterator

import torch

from guided_diffusion.denoisers import Denoise, Labels
from guided_diffusion.samplers.base import Step, check_falling, check_fraction
from guided_diffusion.samplers.grids import Grid
from guided_diffusion.samplers.noise import Draw
from guided_diffusion.samplers.walk import Walk, begin, predict
from guided_diffusion.schedules import Samples, Schedule


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
    check_fraction("eta", eta)
    if eta > 0:
        check_falling(f"ddim with eta={eta:g}", times)
    walk, x = Walk(times, draw), noise
    denoise = begin(denoise, walk)
    for t, t_next in walk:
        (alpha, sigma), (alpha_next, sigma_next) = schedule(t), schedule(t_next)
        x0, eps = predict(denoise, walk, x, t, labels)
        std = torch.zeros_like(sigma)
        if eta > 0:
            std = eta * (sigma_next / sigma) * (sigma**2 - (alpha / alpha_next) ** 2 * sigma_next**2).sqrt()
        x = alpha_next * x0 + (sigma_next**2 - std**2).sqrt() * eps
        if std > 0:
            x = x + std * draw(x.shape).to(x)
        yield Step(t_next, x, x0)
