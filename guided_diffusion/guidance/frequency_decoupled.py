"""Frequency-decoupled guidance: one scale for the details of an image and another for its coarse structure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

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
from guided_diffusion.guidance.geometry import check_images
from guided_diffusion.guidance.weak import extrapolate
from guided_diffusion.schedules import Samples, Schedule


@dataclass(frozen=True)
class FrequencyDecoupled(Guidance):
    """``u + w (q - low) + w_low low``, with ``q = c - u``, its low frequencies ``low = blur(q)`` and a scale for them.

    ``w_low = 1 + low_scale_ratio (w - 1)``, so that one number is the scale and w = 1 is the conditional model. The
    blur is Gaussian, with reflected borders, in place of the authors' Laplacian pyramid of two levels, for which sizes
    must be powers of 2. It is linear, so the rule is the same in x0, eps and v. See Sadat et al. 2025 (arXiv
    2506.19713); their weight of the parallel part is left out.

    Args:
        scale: w, the scale of high frequencies, a number or a tensor of shape (b,). At 0 it is exactly the
            unconditional model, with a jump, and at 1 the conditional one.
        low_scale_ratio: ``(w_low - 1) / (w - 1)``; neutral at 1. The default is the authors' w = 10 and w_low = 5.
        blur_std: The standard deviation of the blur, in pixels; about that of the authors' pyramid by default.

    Raises:
        ValueError: If a scale or the ratio is not finite or blur_std not positive; when called, if samples are not
            images.
    """

    as_classifier_free: ClassVar[Mapping[str, object]] = {"low_scale_ratio": 1.0}

    scale: Scale = 1.0
    low_scale_ratio: float = 0.4444
    blur_std: float = 1.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.low_scale_ratio):
            raise ValueError(f"low_scale_ratio must be finite, got {self.low_scale_ratio}")
        if not 0 < self.blur_std < math.inf:
            raise ValueError(f"blur_std must be positive, got {self.blur_std}")

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_images("frequency-decoupled guidance", x_t)
            c, u = conditional_and_unconditional(denoise, x_t, t, y, scale)
            w, low = broadcast(scale, x_t), blur(c.x0 - u.x0, self.blur_std)
            change = (self.low_scale_ratio - 1) * (w - 1) * low
            return shift_x0(extrapolate(c, u, scale), change, t, schedule)

        return guided


def blur(images: Samples, std: float) -> Samples:
    """Return the images after a Gaussian blur with reflected borders, cut off at 3 std or at the size of the image."""
    for axis, padding in ((2, (0, 0, 1, 1)), (3, (1, 1, 0, 0))):
        radius = min(math.ceil(3 * std), images.shape[axis] - 1)
        weights = torch.exp(-(torch.arange(-radius, radius + 1, dtype=torch.float64) ** 2) / (2 * std**2))
        padded, size = pad(images, [radius * side for side in padding], mode="reflect"), images.shape[axis]
        kernel = (weights / weights.sum()).tolist()
        images = sum((k * padded.narrow(axis, i, size) for i, k in enumerate(kernel)), torch.zeros_like(images))
    return images
