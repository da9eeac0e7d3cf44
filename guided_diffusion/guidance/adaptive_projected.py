"""Adaptive projected guidance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    along_walk,
    as_scale,
    broadcast,
    conditional_and_unconditional,
    shift_x0,
)
from guided_diffusion.guidance.classifier_free import ClassifierFree
from guided_diffusion.guidance.geometry import norm, project
from guided_diffusion.guidance.weak import extrapolate
from guided_diffusion.samplers.walk import Carried, Walk
from guided_diffusion.schedules import Samples, Schedule


@dataclass(frozen=True)
class AdaptiveProjected(Guidance):
    """``x0 = c + (w - 1) (q_orth + eta q_par)``, where q is made from ``c - u`` in x0.

    In this order:

        q = c - u
        q <- q + momentum q_last            q_last: this sum in the step before, at first 0
        q <- q min(1, norm_threshold / |q|)
        q = q_par + q_orth                  q_par: the part along c

    With ``eta = 1``, ``norm_threshold = inf`` and ``momentum = 0`` it is ``ClassifierFree``. A step stores the sum of
    its first evaluation. See Sadat et al. 2024 (arXiv 2410.02416), algorithm 1; the defaults are theirs for EDM2-S.

    Args:
        scale: w, a number or a tensor of shape (b,). At 0 it is exactly the unconditional model, with a jump, and at 1
            the conditional one.
        eta: The weight of the part along c, which saturates colours; neutral at 1.
        norm_threshold: The largest norm of q, in units of x0; it should grow with the root of the number of dimensions.
        momentum: The weight of the sum of the step before, in (-1, 1); neutral at 0, and negative in the paper.

    Raises:
        ValueError: If a scale or eta is not finite, the threshold not positive or the momentum outside of (-1, 1).
    """

    as_classifier_free: ClassVar[Mapping[str, object]] = {"eta": 1.0, "norm_threshold": math.inf, "momentum": 0.0}

    scale: Scale = 1.0
    eta: float = 0.0
    norm_threshold: float = 2.5
    momentum: float = -0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.eta):
            raise ValueError(f"eta must be finite, got {self.eta}")
        if not self.norm_threshold > 0:
            raise ValueError(f"norm_threshold must be positive, got {self.norm_threshold}")
        if not -1 < self.momentum < 1:
            raise ValueError(f"momentum must be in (-1, 1), got {self.momentum}")

    def counted_as(self) -> Guidance:
        return ClassifierFree(self.scale)

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        scale, sums = as_scale(self.scale), Carried[Tensor](walk)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            c, u = conditional_and_unconditional(denoise, x_t, t, y, scale)
            w, q = broadcast(scale, x_t), c.x0 - u.x0
            last = sums(torch.zeros_like(q), lambda before: q + self.momentum * before)
            change = (w - 1) * self._change(q, last, c.x0)
            return shift_x0(extrapolate(c, u, scale), change, t, schedule)

        return guided

    def _change(self, q: Samples, last: Samples, c: Samples) -> Samples:
        """Return how much momentum, threshold and projection change q."""
        total = q + self.momentum * last
        limited = (self.norm_threshold / norm(total)).clamp(max=1).to(q.dtype) * total
        return limited - q - (1 - self.eta) * project(limited, c)
