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
    ``w - 1`` on a conditional one. Dhariwal & Nichol 2021 (arXiv 2105.05233): this is their eq. 14, with
    ``sigma = sqrt(1 - abar)`` and the gradient times k, exactly. An ancestral step with it moves the mean by
    ``k Sigma grad`` as in their eq. 10 and algorithm 1, to first order in the step; the gradient is taken at x_t, as
    in their code, where eq. 10 has it at the mean. Their scale s on a conditional model is w = 1 + s. Where k = 0,
    and for samples without a label, the classifier is not asked, and the prediction is the base's to the bit.

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
        if self.classifier is None:
            raise ValueError("classifier guidance needs a classifier, and there is none")
        classify, conditional = self.classifier, self.base == "conditional"
        k = torch.as_tensor(self.scale, dtype=torch.float64, device="cpu") - BASES[self.base]
        lacking = k != 0

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_length(k, x_t)
            base = denoise(x_t, t, y if conditional else None)
            if y is None or not lacking.any():
                return base
            rows = (lacking.to(y.device) & (y >= 0)).nonzero()[:, 0]
            if not len(rows):
                return base
            grad = gradient(classify, x_t[rows], t[rows], y[rows], self.temperature)
            shift = expand_as(k.to(grad).expand(len(x_t))[rows], grad) * grad
            alpha, sigma = (expand_as(value[rows], grad) for value in schedule(t))
            return Prediction(
                x0=base.x0.index_add(0, rows, (sigma**2 / alpha * shift).to(base.x0.dtype)),
                eps=base.eps.index_add(0, rows, (-sigma * shift).to(base.eps.dtype)),
            )

        return guided
