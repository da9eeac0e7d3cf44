"""Classifier-free guidance whose standard deviation is brought back to that of the conditional model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    as_scale,
    conditional_and_unconditional,
    per_evaluation,
    shift_x0,
)
from guided_diffusion.guidance.geometry import PerSample, check_images, norm, std
from guided_diffusion.guidance.weak import extrapolate
from guided_diffusion.samplers.base import check_fraction
from guided_diffusion.schedules import Samples, Schedule, expand_as


@dataclass(frozen=True)
class Rescaled(Guidance):
    """``v = rescale v_g std(v_c) / std(v_g) + (1 - rescale) v_g``, with ``v_g`` of ``ClassifierFree``.

    ``v = alpha eps - sigma x0``, and std is taken over all dimensions of a sample. A ``v_g`` that is constant up to
    rounding is not rescaled. See Lin et al. 2023 (arXiv 2305.08891), section 3.4.

    Args:
        scale: w, a number or a tensor of shape (b,). At 0 it is exactly the unconditional model, with a jump, and at 1
            the conditional one.
        rescale: The authors' phi, in [0, 1]; neutral at 0.

    Raises:
        ValueError: If a scale is not finite or rescale not in [0, 1]; when called, if samples are not images, because
            the std of a few numbers is meaningless.
    """

    as_classifier_free: ClassVar[Mapping[str, object]] = {"rescale": 0.0}

    scale: Scale = 1.0
    rescale: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fraction("rescale", self.rescale)

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_images("rescaled guidance", x_t)
            c, u = conditional_and_unconditional(denoise, x_t, t, y, scale)
            free = extrapolate(c, u, scale)
            alpha, sigma = (expand_as(value, x_t) for value in schedule(t))
            v_c, v_g = (alpha * prediction.eps - sigma * prediction.x0 for prediction in (c, free))
            return shift_x0(free, -sigma * (self.rescale * excess(v_c, v_g) * v_g), t, schedule)

        return guided


def excess(v_c: Samples, v_g: Samples) -> PerSample:
    """Return ``std(v_c) / std(v_g) - 1``, and 0 where ``v_g`` is constant up to rounding."""
    spread, rounding = std(v_g), torch.finfo(v_g.dtype).eps * norm(v_g)
    varies = spread > rounding
    return (std(v_c) / spread.where(varies, 1) - 1).where(varies, 0).to(v_g.dtype)
