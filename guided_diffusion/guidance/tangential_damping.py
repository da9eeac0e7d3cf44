"""Classifier-free guidance whose unconditional score is projected onto the main direction of both scores (TCFG)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    as_scale,
    broadcast,
    conditional_and_unconditional,
    per_evaluation,
)
from guided_diffusion.guidance.geometry import inner
from guided_diffusion.guidance.weak import extrapolate
from guided_diffusion.schedules import Samples, Schedule, expand_as


@dataclass(frozen=True)
class TangentialDamping(Guidance):
    """``u' + w (c - u')`` in eps, where ``u' = <u, v> v`` and v is the first right singular vector of [c; u].

    ``(cos a, sin a)`` with ``2 a = atan2(2 <c, u>, |c|^2 - |u|^2)`` is the first eigenvector of the 2 x 2 Gram matrix,
    so ``u' = u + cos(a) (sin(a) c - cos(a) u)``. Where c and u are parallel it is ``ClassifierFree``. The rule is the
    same on scores, which are multiples of eps. See Kwon et al. 2025 (arXiv 2503.18137).

    Args:
        scale: w, a number or a tensor of shape (b,). At 0 it is exactly the unconditional model, with a jump, and at 1
            the conditional one.

    Raises:
        ValueError: If a scale is not finite.
    """

    scale: Scale = 1.0

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            c, u = conditional_and_unconditional(denoise, x_t, t, y, scale)
            w = broadcast(scale, x_t)
            change = (1 - w) * damping(c.eps, u.eps)
            alpha, sigma = (expand_as(value, change) for value in schedule(t))
            free = extrapolate(c, u, scale)
            return Prediction(free.x0 - (sigma / alpha) * change, free.eps + change)

        return guided


def damping(c: Samples, u: Samples) -> Samples:
    """Return ``<u, v> v - u``, with v the first right singular vector of [c; u] of each sample."""
    angle = torch.atan2(2 * inner(c, u), inner(c, c) - inner(u, u)) / 2
    sin_minus_cos = math.sqrt(2) * (angle - math.pi / 4).sin()  # exactly 0 where c is u
    cos, sin, difference = (value.to(u.dtype) for value in (angle.cos(), angle.sin(), sin_minus_cos))
    return cos * (sin * (c - u) + difference * u)
