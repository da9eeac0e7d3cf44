"""Classifier-free guidance in a limited interval of noise levels."""

from dataclasses import dataclass

from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    along_walk,
    as_scale,
    check_interval,
    check_length,
    scale_in_interval,
)
from guided_diffusion.guidance.classifier_free import classifier_free
from guided_diffusion.samplers.walk import Walk
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class LimitedInterval(Guidance):
    """``u + w (c - u)`` where ``sigma_lo < sigma / alpha <= sigma_hi``, and ``c`` elsewhere.

    Outside of it only ``c`` is evaluated, so w = 0 is not the unconditional model. Each evaluation is inside or
    outside by its own noise level, also the second one of a step by Heun's method; the authors decide once for a step.
    See Kynkäänniemi et al. 2024 (arXiv 2404.07724).

    Args:
        scale: w, a number or a tensor of shape (b,); at 1 there is no guidance.
        sigma_lo: The noise level ``sigma / alpha`` up to which there is no guidance.
        sigma_hi: The noise level above which there is none. The defaults are the authors', for ImageNet at 512 pixels.

    Raises:
        ValueError: If a scale is not finite or the interval is empty.
    """

    scale: Scale = 1.0
    sigma_lo: float = 0.19
    sigma_hi: float = 1.61

    def __post_init__(self) -> None:
        super().__post_init__()
        check_interval(self.sigma_lo, self.sigma_hi)

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_length(scale, x_t)
            w = scale_in_interval(scale, walk, schedule, self.sigma_lo, self.sigma_hi)
            return classifier_free(denoise, x_t, t, y, w)

        return guided
