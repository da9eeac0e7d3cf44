"""Classifier guidance."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from guided_diffusion.classifiers import Classify, gradient
from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import Scale, check_length, check_scale
from guided_diffusion.schedules import Schedule, expand_as

BASES = {"unconditional": 0.0, "conditional": 1.0}
"""The exponent of p(y|x) that the denoiser has without the classifier's help."""


@dataclass(frozen=True)
class ClassifierGuidance:
    r"""``eps - k sigma grad log p(y | x_t)`` and ``x0 + k sigma^2 / alpha grad log p(y | x_t)``.

    ``eps`` and ``x0`` are those of the base, and k is what it lacks of w: ``w`` on an unconditional one,
    ``w - 1`` on a conditional one. Dhariwal & Nichol 2021 (arXiv 2105.05233): this is their eq. 14 with
    ``sigma = sqrt(1 - abar)`` (algorithm 2, exactly). An ancestral step with it moves the mean by
    ``k Sigma grad`` as in their eq. 10 (algorithm 1, with the gradient at x_t as in their code), to first
    order in the step. Their scale s on a conditional model is w = 1 + s. Where k = 0, and for samples without a
    label, the classifier is not asked, and the prediction is the base's to the bit.

    Args:
        classifier: ``classifier(x_t, t) -> logits``, trained on noisy images of the same schedule and range.
        scale: w, a number or a tensor of shape (b,).
        base: ``unconditional`` or ``conditional``: whether the denoiser is told the label.
        temperature: of the classifier's softmax; 1 is the classifier as trained.

    Raises:
        ValueError: for a scale that is not finite, another base, a temperature that is not positive; in use,
            if there is no classifier.
    """

    classifier: Classify | None = None
    scale: Scale = 1.0
    base: str = "unconditional"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        check_scale(self.scale)
        if self.base not in BASES:
            raise ValueError(f"base must be {' or '.join(BASES)}, got {self.base!r}")
        if not 0 < self.temperature < torch.inf:
            raise ValueError(f"temperature must be positive, got {self.temperature}")

    def unguided(self) -> ClassifierGuidance:
        return replace(self, scale=BASES[self.base])

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        k = torch.as_tensor(self.scale, dtype=torch.float64, device="cpu") - BASES[self.base]
        if self.classifier is None:
            raise ValueError("classifier guidance needs a classifier, and there is none")
        classify = self.classifier

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_length(k, x_t)
            base = denoise(x_t, t, y if BASES[self.base] else None)
            if y is None:
                return base
            (rows,) = torch.where((k.to(y.device).expand(len(y)) != 0) & (y >= 0))
            if not len(rows):
                return base
            strength = expand_as(k.to(x_t).expand(len(x_t))[rows], x_t)
            shift = strength * gradient(classify, x_t[rows], t[rows], y[rows], self.temperature)
            alpha, sigma = (expand_as(value[rows], x_t) for value in schedule(t))
            return Prediction(
                x0=base.x0.index_add(0, rows, sigma**2 / alpha * shift),
                eps=base.eps.index_add(0, rows, -sigma * shift),
            )

        return guided
