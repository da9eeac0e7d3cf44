"""Autoguidance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Guidance, Scale, as_scale, per_evaluation
from guided_diffusion.guidance.self_guidance import SelfGuidance
from guided_diffusion.guidance.weak import guide_away
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class Autoguidance(Guidance):
    """``b + w (m - b)`` with ``m = D(x_t, t, y)`` and ``b`` the prediction of a weaker model for the same label.

    The weaker model is smaller, less trained or both, and otherwise trained in the same way: guidance then corrects
    the errors that both make. It works without labels too. See Karras et al. 2024, arXiv 2406.02507, eq. 3, with the
    same w.

    Args:
        weak: The weaker denoiser, of the same schedule, range, shape and classes.
        scale: w, a number or a tensor of shape (b,); 1 is the model itself and 0 the weaker one.

    Raises:
        ValueError: If a scale is not finite; when called, if there is no weaker model.
    """

    needs_weak: ClassVar[bool] = True

    weak: Denoise | None = None
    scale: Scale = 1.0

    def with_weak(self, weak: Denoise) -> Autoguidance:
        return replace(self, weak=weak)

    def counted_as(self) -> Guidance:
        return SelfGuidance(self.scale)

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        if self.weak is None:
            raise ValueError("autoguidance needs a weaker model: add weak=PATH, or with_weak(...)")
        return self._guided(denoise, schedule)

    @per_evaluation
    def _guided(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        assert self.weak
        weak, scale = self.weak, as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            return guide_away(denoise, weak, x_t, t, y, scale)

        return guided
