"""Classifier-free guidance."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    as_scale,
    conditional_and_unconditional,
    per_evaluation,
)
from guided_diffusion.guidance.weak import extrapolate
from guided_diffusion.schedules import Samples, Schedule, Times


@dataclass(frozen=True)
class ClassifierFree(Guidance):
    """``u + w (c - u)`` of x0 and of eps, with ``c = D(x_t, t, y)`` and ``u = D(x_t, t, None)``.

    w = 0 is exactly the unconditional and w = 1 the conditional model, at the cost of one evaluation
    (Ho & Salimans 2022, arXiv 2207.12598, eq. 6, with their w + 1 as our w).

    Args:
        scale: w, a number or a tensor of shape (b,); ``ValueError`` if it is not finite.
    """

    scale: Scale = 1.0

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            return classifier_free(denoise, x_t, t, y, scale)

        return guided


def classifier_free(denoise: Denoise, x_t: Samples, t: Times, y: Labels, scale: Float[Tensor, "*b"]) -> Prediction:
    """Return ``u + w (c - u)``, with ``w`` from ``as_scale``: one value, or one for each sample."""
    c, u = conditional_and_unconditional(denoise, x_t, t, y, scale)
    return extrapolate(c, u, scale)
