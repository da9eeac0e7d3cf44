"""Composition of classes, each with a scale of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    as_scale,
    combine,
    needed,
    per_evaluation,
    predictions_of_rows,
)
from guided_diffusion.guidance.weak import extrapolate
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class Composition(Guidance):
    """``u + w (c - u) + sum_i w_i (c_i - u)``: the class of each sample, and further classes i with scales ``w_i``.

    A positive ``w_i`` draws samples towards class i and a negative one away from it. A sample without a label has only
    the further classes. Each of these takes one evaluation. See Liu et al. 2022, arXiv 2206.01714, eqs. 11 and 13.

    Args:
        scale: w, the scale of the sample's own class, a number or a tensor of shape (b,).
        classes: The further classes i; without any it is ``ClassifierFree``.
        scales: The scale ``w_i`` of each of them; 0 leaves the class out.

    Raises:
        ValueError: If a scale is not finite, a class is negative, or there are not as many scales as classes; when
            called, if the network has a number of classes and a class is not below it.
    """

    as_classifier_free: ClassVar[dict[str, object]] = {"classes": (), "scales": ()}

    scale: Scale = 1.0
    classes: Sequence[int] = ()
    scales: Sequence[float] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "classes", tuple(self.classes))
        object.__setattr__(self, "scales", tuple(self.scales))
        if len(self.classes) != len(self.scales):
            raise ValueError(f"scales must have one number for each of {len(self.classes)} classes, got {self.scales}")
        if any(label < 0 for label in self.classes):
            raise ValueError(f"classes must be at least 0, got {list(self.classes)}")
        if not all(map(math.isfinite, self.scales)):
            raise ValueError(f"scales must be finite, got {list(self.scales)}")

    def unguided(self) -> Composition:
        return replace(self, scale=1.0, classes=(), scales=())

    @per_evaluation
    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)
        further = [(label, w) for label, w in zip(self.classes, self.scales, strict=True) if w]
        num_classes = getattr(denoise, "num_classes", None) or math.inf
        if any(label >= num_classes for label, _ in further):
            raise ValueError(f"classes must be below {num_classes}, the number of classes, got {list(self.classes)}")

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            needs_c, needs_u = needed(scale, x_t)
            c, u = predictions_of_rows(denoise, x_t, t, y, needs_c, needs_u | bool(further))
            result = extrapolate(c, u, scale)
            for label, w in further:
                other = denoise(x_t, t, torch.full_like(t, label, dtype=torch.long))
                result = combine(lambda value, c, u, w=w: value + w * (c - u), result, other, u)
            return result

        return guided
