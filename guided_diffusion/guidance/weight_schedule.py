"""Classifier-free guidance whose scale follows a curve in time."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Guidance, Scale, along_walk, as_scale, check_length, shaped
from guided_diffusion.guidance.classifier_free import classifier_free
from guided_diffusion.samplers.walk import Walk
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class WeightSchedule(Guidance):
    """``u + w(t) (c - u)`` with ``w(t) = 1 + (w - 1) shape(tau)`` and ``tau = 1 - t``: 0 at noise, 1 at the image.

    tau is a time, not a share of the steps: on a grid that is not uniform the curve is the same function of t. The
    shapes, in ``SHAPES``, have the mean 1 over t, so that w is the mean scale; but the mean of ``power`` is 1/2 at
    ``power=1``, and that of ``clamp`` is ``1 + floor^2 / 4``. The network is evaluated once where the shape is 0.

    The shapes are those of Wang et al. 2024 (arXiv 2404.13040) as in public ports, from which it is not clear whether
    they multiply w or w - 1; the paper was not read.

    Args:
        scale: w, a number or a tensor of shape (b,); at 1 there is no guidance.
        shape: The name of the curve; ``constant`` is ``ClassifierFree``.
        power: The exponent s of ``power``, ``(1 - cos(pi tau^s)) / 2``.
        floor: The smallest value of ``clamp``, ``max(floor, 2 tau)``, in units of w - 1. The authors clamp w itself, at
            2 for Stable Diffusion 1.5: there ``floor = 1 / (w - 1)``.

    Raises:
        ValueError: If a scale is not finite, the shape unknown, the power not positive, the floor outside of
            [0, 2), or one of them is given for a shape without it.
    """

    as_classifier_free: ClassVar[dict[str, object]] = {"shape": "constant"}

    scale: Scale = 1.0
    shape: str = "linear"
    power: float = 1.0
    floor: float = 0.15

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.shape not in SHAPES:
            raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {self.shape!r}")
        for setting in ("power", "floor"):
            if self.shape != SHAPE_OF[setting] and getattr(self, setting) != getattr(type(self), setting):
                raise ValueError(f"{setting} has no effect on shape={self.shape}: leave it out")
        if not 0 < self.power < math.inf:
            raise ValueError(f"power must be positive and finite, got {self.power}")
        if not 0 <= self.floor < 2:
            raise ValueError(f"floor must be in [0, 2), got {self.floor}")

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_length(scale, x_t)
            return classifier_free(denoise, x_t, t, y, shaped(scale, SHAPES[self.shape](1 - walk.t, self)))

        return guided


SHAPES: dict[str, Callable[[Tensor, WeightSchedule], Tensor]] = {
    "constant": lambda tau, _: torch.ones_like(tau),
    "linear": lambda tau, _: 2 * tau,
    "cosine": lambda tau, _: 1 - (math.pi * tau).cos(),
    "inverse": lambda tau, _: 2 * (1 - tau),
    "sine": lambda tau, _: 1 + (math.pi * tau).cos(),
    "v_shape": lambda tau, _: 2 * (1 - 2 * tau).abs(),
    "lambda_shape": lambda tau, _: 2 * (1 - (1 - 2 * tau).abs()),
    "power": lambda tau, s: (1 - (math.pi * tau**s.power).cos()) / 2,
    "clamp": lambda tau, s: (2 * tau).clamp(min=s.floor),
}
"""The curves ``shape(tau, settings)`` by name, for tau from 0 at noise to 1 at the image."""
SHAPE_OF = {"power": "power", "floor": "clamp"}
"""The shape that has each setting."""
