"""Classifier guidance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.classifiers import Classify, log_probability
from guided_diffusion.guidance.base import check_interval, scale_in_interval
from guided_diffusion.guidance.by_classifier import ByClassifier, Direction, check_takes_noise, gradient_of_rows
from guided_diffusion.samplers.walk import Walk
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class ClassifierGuidance(ByClassifier):
    r"""``eps - k sigma grad log p(y | x_t)`` and ``x0 + k sigma^2 / alpha grad log p(y | x_t)``.

    ``eps``, ``x0`` and ``k`` are those of ``ByClassifier``: ``k`` is the part of the exponent w that the base lacks,
    and for samples with k = 0 or without a label the prediction is exactly the base's.

    The scale w holds where ``sigma_lo < sigma / alpha <= sigma_hi``. Elsewhere w = 1, the conditional model, as in
    ``LimitedInterval``: there k = 1 on an unconditional base, and on a conditional one the classifier is not evaluated.

    It moves the mean of an ancestral step by ``k Sigma grad``, to first order in the step. The gradient is taken at
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
        ValueError: If a scale is not finite, the base unknown, the temperature not positive, the interval empty or the
            classifier a judge; when called, if there is no classifier.
    """

    temperature: float = 1.0
    sigma_lo: float = 0.0
    sigma_hi: float = torch.inf

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.temperature < torch.inf:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        check_interval(self.sigma_lo, self.sigma_hi)
        check_takes_noise(self.classifier)

    def direction(self, classify: Classify, walk: Walk) -> Direction:
        log_p = partial(log_probability, temperature=self.temperature)
        return lambda rows, base, x_t, t, y: gradient_of_rows(rows, log_p, classify, x_t, t, y)

    def scale_at(self, scale: Float[Tensor, "*s"], walk: Walk, schedule: Schedule) -> Float[Tensor, "*b"]:
        if (self.sigma_lo, self.sigma_hi) == (0, torch.inf):
            return scale
        return scale_in_interval(scale, walk, schedule, self.sigma_lo, self.sigma_hi)
