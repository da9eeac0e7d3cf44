"""Thresholds, which keep the estimate of the clean image inside the range of images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import per_evaluation
from guided_diffusion.schedules import Schedule, expand_as


@dataclass(frozen=True)
class NoThreshold:
    """No threshold: the denoiser stays as it is."""

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        return denoise


@dataclass(frozen=True)
class Clip:
    """Static thresholding: ``x0`` clamped to [-bound, bound], and ``eps`` recomputed from it.

    The bound is positive: 1 for images in [-1, 1], and infinity leaves x0 as it is. See Saharia et al. 2022
    (arXiv 2205.11487), section 2.3.
    """

    bound: float = 1.0

    def __post_init__(self) -> None:
        if not self.bound > 0:
            raise ValueError(f"bound must be positive, got {self.bound}")

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        def clipped(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            return Prediction.from_x0(denoise(x_t, t, y).x0.clamp(-self.bound, self.bound), x_t, t, schedule)

        return clipped


@dataclass(frozen=True)
class DynamicThreshold:
    """Dynamic thresholding: ``clamp(x0, -s, s) / s``, and ``eps`` recomputed from it.

    ``s`` is the larger of 1 and the ``quantile``, in (0, 1], of the absolute values of a sample; with a ``quantile``
    of 1 nothing is clamped. See Saharia et al. 2022 (arXiv 2205.11487), section 2.3 and appendix A.2.
    """

    quantile: float = 0.995

    def __post_init__(self) -> None:
        if not 0 < self.quantile <= 1:
            raise ValueError(f"quantile must be in (0, 1], got {self.quantile}")

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        def thresholded(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            x0 = denoise(x_t, t, y).x0
            bound = expand_as(x0.abs().flatten(1).quantile(self.quantile, dim=1).clamp(min=1), x0)
            return Prediction.from_x0(torch.clamp(x0, -bound, bound) / bound, x_t, t, schedule)

        return thresholded
