"""Guidance by a classifier of clean images, with a temperature for each of the two terms of its log-probability."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guided_diffusion.classifiers import Classify, check_judge_may_guide, softplus_for_relu
from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance.base import Guidance
from guided_diffusion.guidance.by_classifier import ByClassifier, Direction, gradient_of_rows
from guided_diffusion.guidance.classifier import ClassifierGuidance
from guided_diffusion.samplers.walk import Walk
from guided_diffusion.schedules import expand_as


@dataclass(frozen=True)
class JointTemperature(ByClassifier):
    r"""``x0 + k sigma^2 / alpha (1 + gamma sin(pi t) / t) g``, with ``g = grad_x0 [tau1 f_y - logsumexp(tau2 f)]``.

    f are the logits of a classifier of clean images at the base's x0. g does not go through the denoiser, and is used
    as the gradient at x_t, so it moves the mean of an ancestral step by ``k (Sigma + gamma sin(pi t) max Sigma) g``, to
    first order in the step, as in the code of Ma et al. 2023 for DDPM (arXiv 2310.11311; their s is k). There beta
    grows linearly and ``max Sigma / Sigma`` is 1 / t; here 1 / t is used on every schedule. The change of x0 is large
    at high noise: use a threshold. ``tau1 = tau2 = 1`` is the log-probability, and ``gamma = 0`` leaves the sine out.

    Args:
        classifier: ``classifier(x0, t) -> logits``; a time-aware one is evaluated at ``clean_t``.
        tau1: The factor of the logit of the class, positive.
        tau2: The factor of the logits of all classes, at least 0; below tau1, g stays large when the class is certain.
        gamma: The weight of the sine, at least 0.
        softplus_beta: The beta of the Softplus in place of ReLU, positive; ``None`` leaves the classifier as trained.
        clean_t: The time in [0, 1) that a time-aware classifier is given with x0; most networks need more than 0.
        allow_judge: Whether the classifier may be a judge, whose own measurements are then too favourable.

    Raises:
        ValueError: If a setting is out of its range, or the classifier a judge that is not allowed; when called, if
            there is no classifier, or ``softplus_beta`` is given for one without ReLU.
    """

    base: str = "conditional"
    tau1: float = 1.0
    tau2: float = 0.5
    gamma: float = 0.3
    softplus_beta: float | None = None
    clean_t: float = 0.01
    allow_judge: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.tau1 < math.inf:
            raise ValueError(f"tau1 must be positive, got {self.tau1}")
        for name in ("tau2", "gamma"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.softplus_beta is not None and not 0 < self.softplus_beta < math.inf:
            raise ValueError(f"softplus_beta must be positive, or null for the ReLU, got {self.softplus_beta}")
        if not 0 <= self.clean_t < 1:
            raise ValueError(f"clean_t must be in [0, 1), got {self.clean_t}")
        check_judge_may_guide(self.classifier, self.allow_judge)

    def counted_as(self) -> Guidance:
        return ClassifierGuidance(None, self.scale, self.base)

    def direction(self, classify: Classify, walk: Walk) -> Direction:
        if self.softplus_beta is not None:
            classify = softplus_for_relu(classify, self.softplus_beta)

        def of_rows(rows: Tensor, base: Prediction, x_t: Tensor, t: Tensor, y: Tensor) -> Tensor:
            g = gradient_of_rows(rows, self.objective, classify, base.x0, torch.full_like(t, self.clean_t), y)
            return expand_as(1 + self.gamma * math.pi * torch.sinc(t), g) * g

        return of_rows

    def objective(self, logits: Float[Tensor, "b classes"], y: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return ``tau1 f_y - logsumexp(tau2 f)``."""
        return self.tau1 * logits.gather(1, y[:, None])[:, 0] - (self.tau2 * logits).logsumexp(1)
