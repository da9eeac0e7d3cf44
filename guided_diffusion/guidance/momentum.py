"""Momentum guidance: the velocity is pushed away from an average of the earlier velocities."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Guidance, Scale, along_walk, as_scale, broadcast, check_interval, in_interval
from guided_diffusion.guidance.classifier_free import ClassifierFree, classifier_free
from guided_diffusion.guidance.geometry import flow_velocity, shift_velocity
from guided_diffusion.samplers.walk import Carried, Walk
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class MomentumGuidance(Guidance):
    """``f + strength (f - m)``, with ``f = eps - x0`` of ``ClassifierFree`` and a running average m of f.

    m begins as the first f; the first evaluation of each step uses m and then sets ``m <- (1 - decay) f + decay m``. In
    x0 this adds ``-strength sigma / (alpha + sigma) (f - m)``, where ``sigma_lo < sigma / alpha <= sigma_hi``; m is
    updated at every noise level. See Liao et al. 2026 (arXiv 2602.20360), eq. 12 and 13, as in two public ports;
    their code is not public and the paper was not read in full.

    Args:
        scale: w of ``ClassifierFree``, a number or a tensor of shape (b,).
        strength: The authors' alpha; neutral at 0. They take 0.5, and 1 to 1.5 at low scales.
        decay: The authors' beta, in [0, 1): the part of the average that a step keeps.
        sigma_lo: The noise level ``sigma / alpha`` up to which there is no momentum.
        sigma_hi: The noise level above which there is none. The defaults are the authors' times 0.7 and 0.05, where 0
            is noise and 1 is data.

    Raises:
        ValueError: If scale or strength is not finite, decay not in [0, 1) or the interval empty.
    """

    as_classifier_free: ClassVar[Mapping[str, object]] = {"strength": 0.0}

    scale: Scale = 1.0
    strength: float = 0.5
    decay: float = 0.6
    sigma_lo: float = 0.4286
    sigma_hi: float = 19.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.strength):
            raise ValueError(f"strength must be finite, got {self.strength}")
        if not 0 <= self.decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {self.decay}")
        check_interval(self.sigma_lo, self.sigma_hi)

    def unguided(self) -> MomentumGuidance:
        return replace(self, scale=1.0, strength=0.0)

    def counted_as(self) -> Guidance:
        return ClassifierFree(self.scale)

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        scale, strength = as_scale(self.scale), as_scale(self.strength)
        averages = Carried[Tensor](walk)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            free = classifier_free(denoise, x_t, t, y, scale)
            f = flow_velocity(free)
            average = averages(f, lambda before: (1 - self.decay) * f + self.decay * before)
            acts = in_interval(walk, schedule, self.sigma_lo, self.sigma_hi)
            return shift_velocity(free, broadcast(strength * acts, f) * (f - average), t, schedule)

        return guided
