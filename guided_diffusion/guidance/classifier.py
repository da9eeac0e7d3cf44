"""Classifier guidance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from guided_diffusion.classifiers import Classify, gradient
from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    along_walk,
    as_scale,
    broadcast,
    check_interval,
    check_length,
    scale_in_interval,
)
from guided_diffusion.samplers.walk import Walk
from guided_diffusion.schedules import Samples, Schedule, Times, expand_as, to_device

BASES = {"unconditional": 0.0, "conditional": 1.0}
"""The exponent of p(y|x) that the denoiser has without a classifier."""


@dataclass(frozen=True)
class ClassifierGuidance(Guidance):
    r"""``eps - k sigma grad log p(y | x_t)`` and ``x0 + k sigma^2 / alpha grad log p(y | x_t)``.

    ``eps`` and ``x0`` are the base's, and ``k`` is the part of the exponent w that it lacks: ``k = w`` on an
    unconditional base and ``k = w - 1`` on a conditional one. For samples with k = 0 or without a label the
    prediction is exactly the base's, and the classifier is not evaluated (on a GPU it is for those without a label,
    because the host would have to wait for the labels).

    The scale w holds where ``sigma_lo < sigma / alpha <= sigma_hi``. Elsewhere w = 1, the conditional model, as for
    ``LimitedInterval``: on a conditional base the classifier is not evaluated there, on an unconditional one k = 1.

    An ancestral step with it moves the mean by ``k Sigma grad``, to first order in the step. The gradient is taken at
    x_t, as in the code of Dhariwal & Nichol 2021 (arXiv 2105.05233); their eq. 10 has it at the mean. See their eq. 14
    and algorithm 1, with ``sigma = sqrt(1 - abar)`` and their scale s = k.

    Args:
        classifier: ``classifier(x_t, t) -> logits``, trained on noisy images of the same schedule and range.
        scale: w, a number or a tensor of shape (b,).
        base: Whether the denoiser is given the label: ``unconditional`` or ``conditional``.
        temperature: The temperature of the classifier's softmax; 1 is the classifier as trained.
        sigma_lo: The noise level ``sigma / alpha`` up to which w is 1.
        sigma_hi: The noise level above which w is 1. By default w holds at every noise level.

    Raises:
        ValueError: If a scale is not finite, the base unknown, the temperature not positive or the interval empty; when
            called, if there is no classifier.
    """

    needs_classifier: ClassVar[bool] = True

    classifier: Classify | None = None
    scale: Scale = 1.0
    base: str = "unconditional"
    temperature: float = 1.0
    sigma_lo: float = 0.0
    sigma_hi: float = torch.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.base not in BASES:
            raise ValueError(f"base must be {' or '.join(BASES)}, got {self.base!r}")
        if not 0 < self.temperature < torch.inf:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        check_interval(self.sigma_lo, self.sigma_hi)

    def unguided(self) -> ClassifierGuidance:
        return replace(self, scale=BASES[self.base])

    def with_classifier(self, classifier: Classify) -> ClassifierGuidance:
        return replace(self, classifier=classifier)

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        if self.classifier is None:
            raise ValueError("classifier guidance needs a classifier, and there is none")
        return self._guided(denoise, schedule)

    @along_walk
    def _guided(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        assert self.classifier
        classify, scale, base_scale = self.classifier, as_scale(self.scale), BASES[self.base]
        is_limited = (self.sigma_lo, self.sigma_hi) != (0, torch.inf)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_length(scale, x_t)
            base = denoise(x_t, t, y if self.base == "conditional" else None)
            w = scale_in_interval(scale, walk, schedule, self.sigma_lo, self.sigma_hi) if is_limited else scale
            lacking = w != base_scale
            if y is None or not lacking.any():
                return base
            rows = rows_to_guide(lacking.expand(len(y)), y)
            if not len(rows):
                return base
            grad = gradient_of_rows(rows, classify, x_t, t, y, self.temperature)
            k = broadcast(w, grad) - base_scale
            alpha, sigma = (expand_as(value, grad) for value in schedule(t))
            return Prediction(
                x0=base.x0 + (sigma**2 / alpha * (k * grad)).to(base.x0.dtype),
                eps=base.eps - (sigma * (k * grad)).to(base.eps.dtype),
            )

        return guided


def rows_to_guide(lacking: Bool[Tensor, " b"], y: Int[Tensor, " b"]) -> Int[Tensor, " r"]:
    """Return the indices of the samples that lack guidance, of which those without a label are left out on the CPU.

    ``lacking`` is on the CPU. For labels on a GPU the host would have to wait.
    """
    if y.device.type == "cpu":
        lacking = lacking & (y >= 0)
    return to_device(lacking.nonzero()[:, 0], y)


def gradient_of_rows(
    rows: Int[Tensor, " r"], classify: Classify, x_t: Samples, t: Times, y: Int[Tensor, " b"], temperature: float
) -> Samples:
    """Return ``grad log p(y | x_t)`` of the samples ``rows``, and 0 for the others and those without a label."""
    labels = y[rows]
    grad = gradient(classify, x_t[rows], t[rows], labels.clamp(min=0), temperature)
    grad = grad.flatten(1).masked_fill((labels < 0)[:, None], 0).view_as(grad)
    return grad.new_zeros(x_t.shape).index_copy(0, rows, grad)
