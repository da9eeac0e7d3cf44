"""Classifier-free guidance."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    as_scale,
    broadcast,
    check_scale,
    conditional_and_unconditional,
    linear,
)
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class ClassifierFree(Guidance):
    """``u + w (c - u)``, with ``c = D(x_t, t, y)`` and ``u = D(x_t, t, None)``.

    w = 0 is the unconditional and w = 1 the conditional model, to the bit and at the cost of one evaluation.

    Args:
        scale: w, a number or a tensor of shape (b,).

    Raises:
        ValueError: If a scale is not finite.

    References:
        Ho & Salimans 2022 (arXiv 2207.12598), eq. 6, with their w + 1 as our w.
    """

    scale: Scale = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            c, u = conditional_and_unconditional(denoise, x_t, t, y, scale)
            w = broadcast(scale, x_t)
            return linear(lambda c, u: u + w * (c - u), c, u)

        return guided
