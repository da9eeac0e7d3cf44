"""Classifier-free guidance."""

from collections.abc import Callable
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
    shaped,
    unless_conditional,
)
from guided_diffusion.guidance.weak import extrapolate
from guided_diffusion.schedules import Samples, Schedule, Times, to_device


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
    """Return ``u + w (c - u)``, where ``scale``, from ``as_scale``, holds one w or one for each sample."""
    c, u = conditional_and_unconditional(denoise, x_t, t, y, scale)
    return extrapolate(c, u, scale)


def with_factor(
    denoise: Denoise,
    x_t: Samples,
    t: Times,
    y: Labels,
    scale: Float[Tensor, "*b"],
    factor: Callable[[Prediction, Prediction], Float[Tensor, " b"]],
) -> Prediction:
    """Return ``c + (w - 1) factor (c - u)``, where ``factor(c, u)`` gives one factor for each sample.

    ``scale``, from ``as_scale``, holds one w or one for each sample. Where the factor is 1 the prediction is that of
    ``classifier_free``, bit for bit; where w = 1 it is c, at the cost of one evaluation.
    """
    c, u = conditional_and_unconditional(denoise, x_t, t, y, unless_conditional(scale))
    shape = factor(c, u)
    return extrapolate(c, u, shaped(to_device(scale.to(shape.dtype), shape), shape))
