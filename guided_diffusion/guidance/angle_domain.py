"""Angle-domain guidance: a rotation of the conditional estimate away from the unconditional one."""

from dataclasses import dataclass
from math import radians

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
    shift_x0,
)
from guided_diffusion.guidance.geometry import inner, norm, project, ratio
from guided_diffusion.schedules import Samples, Schedule


@dataclass(frozen=True)
class AngleDomain(Guidance):
    """``x0 = cos(theta') c + sin(theta') / sin(theta) p``, where theta is the angle between c and u in x0.

    ``theta' = (w - 1) theta``, cut off at ``max_angle``, and p is the part of ``c - u`` perpendicular to u. Because
    ``|p| = |c| sin(theta)``, the second term is computed as ``|c| sin(theta') p / |p|``. The norm of c is kept only
    roughly. In one dimension it is c where c and u have the same sign. See Jin et al. 2025 (arXiv 2506.11039); their
    code adds 1e-3 to ``w - 1`` and sets it to 0 below w = 1, where this method turns c towards u instead.

    Args:
        scale: w, a number or a tensor of shape (b,). At 0 it is exactly the unconditional model, with a jump, and at 1
            the conditional one.
        max_angle: The largest rotation, in degrees.

    Raises:
        ValueError: If a scale is not finite or max_angle not in (0, 180].
    """

    scale: Scale = 1.0
    max_angle: float = 60.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.max_angle <= 180:
            raise ValueError(f"max_angle must be in (0, 180], got {self.max_angle}")

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            c, u = conditional_and_unconditional(denoise, x_t, t, y, scale)
            change = rotation(c.x0, u.x0, broadcast(scale, x_t) - 1, radians(self.max_angle))
            return shift_x0(c, change, t, schedule)

        return guided


def rotation(c: Samples, u: Samples, factor: Tensor, max_angle: float) -> Samples:
    """Return the change of c that turns it away from u by ``factor`` times the angle between them."""
    away = c - u
    p = away - project(away, u)
    theta = torch.atan2(norm(p), ratio(inner(c, u), norm(u)))
    angle = (factor * theta).clamp(-max_angle, max_angle)
    sideways = norm(c) * angle.sin() * ratio(p, norm(p))
    return (angle.cos() - 1).to(c.dtype) * c + sideways.to(c.dtype)
