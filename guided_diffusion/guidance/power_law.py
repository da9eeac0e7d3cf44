"""Classifier-free guidance whose scale grows with the distance between the conditional and unconditional score."""

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
class PowerLaw(Guidance):
    """``c + (w - 1) n^a (c - u)``, where n is the distance of the scores, ``n = (alpha / sigma^2) |c - u|`` in x0.

    Guidance is strong where the two models differ and weak where they agree. n has the unit of 1 / x and grows with the
    number of pixels, so w must be tuned for each model and image size. At w = 1 there is no guidance; w = 0 is not the
    unconditional model. After Pavasovic et al. 2025 (arXiv 2502.07849) as in public ports; the paper was not read.

    Args:
        scale: w, the authors' omega + 1, a number or a tensor of shape (b,).
        exponent: a, above -1; 0 is ``ClassifierFree``, and below 0 guidance is weak where the scores differ.

    Raises:
        ValueError: If a scale is not finite, or the exponent not above -1 and finite.
    """

    as_classifier_free: ClassVar[dict[str, object]] = {"exponent": 0.0}

    scale: Scale = 1.0
    exponent: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 < self.exponent < math.inf:
            raise ValueError(f"exponent must be above -1 and finite, got {self.exponent}")

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            def factor(c: Prediction, u: Prediction) -> Tensor:
                distance = torch.linalg.vector_norm(rows(c.x0) - rows(u.x0), dim=1)
                alpha, sigma = schedule(t.to(distance.dtype))
                return (distance * alpha / sigma**2).where(distance > 0, 1) ** self.exponent

            return with_factor(denoise, x_t, t, y, scale, factor)

        return guided
