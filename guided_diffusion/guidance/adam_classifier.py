"""Classifier guidance along Adam's direction in place of the gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from guided_diffusion.classifiers import Classify, log_probability
from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance.base import Guidance
from guided_diffusion.guidance.by_classifier import ByClassifier, Direction, check_takes_noise, gradient_of_rows
from guided_diffusion.guidance.classifier import ClassifierGuidance
from guided_diffusion.samplers.walk import Carried, Walk
from guided_diffusion.schedules import Samples


class Moments(NamedTuple):
    """The running means of the gradients and of their squares, and the number of steps in them."""

    m: Samples
    v: Samples
    steps: int


@dataclass(frozen=True)
class AdamClassifier(ByClassifier):
    r"""``eps - k sigma s d``: classifier guidance along Adam's direction ``d = m^ / (sqrt(v^) + 1e-8)``.

    With ``g = grad log p(y | x_t)``, ``m = b1 m + (1 - b1) g`` and ``v = b2 v + (1 - b2) g^2`` run over the steps n,
    and ``m^ = m / (1 - b1^n)`` and ``v^ = v / (1 - b2^n)`` correct them for their start at 0, all elementwise (Belardi
    et al. 2026, arXiv 2603.16797; from the authors' code). d is 0 where v is 0, and bounded if ``b1^2 < b2``.

    w is not an exponent: d has the same size whether the classifier is certain or not. k = 1 is the authors' rule.
    A second evaluation in a step uses its own g, but does not update m and v.

    Args:
        strength: s, the authors' guidance strength, at least 0.
        b1: The decay of m, in [0, 1); at 0, m is g.
        b2: The decay of v, in [0, 1). The defaults are the best of the authors' search for ImageNet.

    Other arguments and errors are those of ``ClassifierGuidance``.
    """

    strength: float = 0.03
    b1: float = 0.32
    b2: float = 0.51

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.strength < torch.inf:
            raise ValueError(f"strength must be at least 0, got {self.strength}")
        for name in ("b1", "b2"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")
        check_takes_noise(self.classifier)

    def counted_as(self) -> Guidance:
        return ClassifierGuidance(None, self.scale, self.base)

    def direction(self, classify: Classify, walk: Walk) -> Direction:
        carried = Carried[Moments](walk)

        def of_rows(rows: Tensor, base: Prediction, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
            g = gradient_of_rows(rows, log_probability, classify, x_t, t, y)
            start = Moments(torch.zeros_like(g), torch.zeros_like(g), 0)
            before = carried(start, lambda moments: self._with(moments, g))
            return self.strength * self._direction(self._with(before, g))

        return of_rows

    def _with(self, moments: Moments, g: Samples) -> Moments:
        m, v, steps = moments
        return Moments(self.b1 * m + (1 - self.b1) * g, self.b2 * v + (1 - self.b2) * g.square(), steps + 1)

    def _direction(self, moments: Moments) -> Samples:
        m, v = moments.m / (1 - self.b1**moments.steps), moments.v / (1 - self.b2**moments.steps)
        return (m / (v.sqrt() + 1e-8)).where(v > 0, 0)
