"""Attacks on the classifier in training, which make it robust: its gradients then guide better."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from guided_diffusion.classifiers import Classifier, log_probability, logits_and_gradient
from guided_diffusion.recipe import eval_mode
from guided_diffusion.schedules import Samples, Times, expand_as
from guided_diffusion.utils.validation import check_positive

STEP = 2.5
"""The sum of the lengths of all steps of an attack, in units of its radius."""


@dataclass(frozen=True)
class ProjectedGradient:
    r"""Untargeted projected gradient descent on the noisy sample, within an L2 ball around it.

    Each step goes ``2.5 epsilon / steps`` down the gradient of ``log p(y | x_t)``, whose length is set to 1, and back
    into the ball ``|x - x_t| <= epsilon``. A sample that is misled is left as it is. The classifier is attacked without
    dropout, and nothing is drawn. Each step costs a forward and a backward pass of the classifier. See Kawar et al.
    2022 (arXiv 2208.08664); the defaults are those of their code for CIFAR-10.

    Args:
        epsilon: The radius of the ball, the same at every noise level, in units of the samples, whose values are in
            [-1, 1]; 0 leaves the samples as they are.
        steps: The number of steps.

    Raises:
        ValueError: If ``epsilon`` is negative or not finite, or there is no step.
    """

    epsilon: float = 0.5
    steps: int = 7

    def __post_init__(self) -> None:
        if not 0 <= self.epsilon < math.inf:
            raise ValueError(f"epsilon must be at least 0, got {self.epsilon}")
        check_positive(steps=self.steps)

    def __call__(self, classifier: Classifier, x_t: Samples, t: Times, y: Int[Tensor, " b"]) -> Samples:
        """Return the attacked samples; ``classifier`` is left as it was."""
        change = torch.zeros_like(x_t)
        with eval_mode(classifier):
            for _ in range(self.steps):
                logits, grad = logits_and_gradient(log_probability, classifier, x_t + change, t, y)
                moved = self._project(change - self._step(grad).to(change.dtype))
                is_right = (logits.argmax(1) == y).to(change.dtype)
                change = moved.where(expand_as(is_right, change) > 0, change)
        return x_t + change

    def _step(self, grad: Samples) -> Samples:
        return STEP * self.epsilon / self.steps * grad / _norm(grad).clamp(min=torch.finfo(grad.dtype).tiny)

    def _project(self, change: Samples) -> Samples:
        return change * (self.epsilon / _norm(change).clamp(min=max(self.epsilon, torch.finfo(change.dtype).tiny)))


def _norm(values: Samples) -> Tensor:
    """Return the L2 norm of each sample, shaped to divide it."""
    return expand_as(values.flatten(1).norm(dim=1), values)
