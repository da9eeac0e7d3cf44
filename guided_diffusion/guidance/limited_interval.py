"""Classifier-free guidance in a limited interval of noise levels."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Scale, check_length
from guided_diffusion.guidance.classifier_free import ClassifierFree
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class LimitedInterval:
    """``u + w (c - u)`` where ``sigma_lo < sigma / alpha <= sigma_hi``, elsewhere ``c``.

    Kynkäänniemi et al. 2024 (arXiv 2404.07724): where noise is strong guidance costs diversity, where it is weak it
    does nothing for the label. Outside of the interval the network is evaluated once. Since ``c`` is taken there, w = 0
    is not the unconditional model here.

    Args:
        scale: w, a number or a tensor of shape (b,); at 1 there is no guidance.
        sigma_lo: where guidance ends: the standard deviation of the noise over the scale of the signal.
        sigma_hi: where it begins. The defaults are the authors', for ImageNet at 512 pixels.

    Raises:
        ValueError: for a scale that is not finite, or an empty interval.
    """

    scale: Scale = 1.0
    sigma_lo: float = 0.19
    sigma_hi: float = 1.61

    def __post_init__(self) -> None:
        ClassifierFree(self.scale)
        if not 0 <= self.sigma_lo < self.sigma_hi:
            raise ValueError(f"0 <= sigma_lo < sigma_hi must hold, got {self.sigma_lo} and {self.sigma_hi}")

    def unguided(self) -> LimitedInterval:
        return replace(self, scale=1.0)

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = torch.as_tensor(self.scale, dtype=torch.float64, device="cpu")

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_length(scale, x_t)
            noise = (-schedule.log_snr(t.double()) / 2).exp().cpu()
            inside = (self.sigma_lo < noise) & (noise <= self.sigma_hi)
            return ClassifierFree(scale.where(inside, 1.0))(denoise, schedule)(x_t, t, y)

        return guided
