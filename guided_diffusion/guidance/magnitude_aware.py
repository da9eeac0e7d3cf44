"""Magnitude-aware guidance (MAMBO-G), which is weak where the two predictions differ much."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Guidance, Scale, as_scale, per_evaluation, rows
from guided_diffusion.guidance.classifier_free import with_factor
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class MagnitudeAware(Guidance):
    """``c + (w - 1) exp(-a rho) (c - u)``, with ``rho = |f_c - f_u| / |f_u|`` of the flow velocity ``f = eps - x0``.

    Guidance is damped where the difference is large, as in the first steps. The norms are those of the flow-matching
    velocity, which the authors' models predict; in x0 the ratio would be far larger. At w = 1 there is no guidance;
    w = 0 is not the unconditional model. See arXiv 2508.03442 (2025), as in diffusers' ``MagnitudeAwareGuidance``.

    Args:
        scale: w, a number or a tensor of shape (b,).
        damping: a, at least 0; 0 is ``ClassifierFree``.

    Raises:
        ValueError: If a scale is not finite, or the damping negative or not finite.
    """

    as_classifier_free: ClassVar[dict[str, object]] = {"damping": 0.0}

    scale: Scale = 1.0
    damping: float = 8.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.damping < math.inf:
            raise ValueError(f"damping must be at least 0 and finite, got {self.damping}")

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def factor(c: Prediction, u: Prediction) -> Tensor:
            f_c, f_u = (rows(each.eps) - rows(each.x0) for each in (c, u))
            distance, size = (torch.linalg.vector_norm(f, dim=1) for f in (f_c - f_u, f_u))
            return (-self.damping * (distance / size).where(size > 0, 0)).exp()

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            return with_factor(denoise, x_t, t, y, scale, factor)

        return guided
