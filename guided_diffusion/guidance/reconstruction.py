"""Reconstruction guidance, by the probability of a label given the estimate of the clean sample."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from jaxtyping import Float, Int
from torch import Tensor

from guided_diffusion.classifiers import Classify, check_judge_may_guide
from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    as_scale,
    broadcast,
    check_length,
    per_evaluation,
    shift_x0,
)
from guided_diffusion.samplers.likelihood import with_gradient
from guided_diffusion.schedules import Samples, Schedule, expand_as


@dataclass(frozen=True)
class Reconstruction(Guidance):
    """``u + w sigma^2 / alpha grad log p(y | u(x_t))`` in x0, with ``u = D(x_t, t, None)`` and the gradient through u.

    The classifier sees the estimate of the clean sample, so it need not know noisy ones. w = 0 is exactly the
    unconditional model. No scale is the conditional model: w = 1 aims at p(x) p(y|x), and misses it because
    ``p(y | E[x_0 | x_t])`` is not ``p(y | x_t)``; the sampler ``twisted`` corrects that with weights. See Ho et al.
    2022 (arXiv 2204.03458), section 3.1, and Chung et al. 2023 (arXiv 2209.14687), theorem 1.

    Args:
        classifier: ``classifier(x, t) -> logits``, trained on clean images or down to little noise.
        scale: w, a number or a tensor of shape (b,).
        clean_t: The time that the classifier gets with the estimates, in [0, 1]; above 0 if it needs a finite log-SNR.
        allow_judge: Whether the classifier may be a judge; samples guided by it please it more than they should.

    Raises:
        ValueError: If a scale is not finite, ``clean_t`` outside of [0, 1], or the classifier a judge that is not
            allowed; when called, if there is no classifier.
    """

    needs_classifier: ClassVar[bool] = True

    classifier: Classify | None = None
    scale: Scale = 1.0
    clean_t: float = 0.01
    allow_judge: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.clean_t <= 1:
            raise ValueError(f"clean_t must be in [0, 1], got {self.clean_t}")
        check_judge_may_guide(self.classifier, self.allow_judge)

    def unguided(self) -> Reconstruction:
        return replace(self, scale=0.0)

    def with_classifier(self, classifier: Classify) -> Reconstruction:
        return replace(self, classifier=classifier)

    def log_likelihood(self, x0: Samples, y: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        """Return ``log p(y | x0)`` of clean samples, 0 for those without a label."""
        assert self.classifier
        log_p = self.classifier(x0, x0.new_full((len(x0),), self.clean_t)).log_softmax(1)
        return log_p.gather(1, y.clamp(min=0)[:, None])[:, 0].masked_fill(y < 0, 0)

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        if self.classifier is None:
            raise ValueError("reconstruction guidance needs a classifier: add classifier=PATH, or with_classifier(...)")
        return self._guided(denoise, schedule)

    @per_evaluation
    def _guided(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        scale = as_scale(self.scale)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_length(scale, x_t)
            if y is None or not scale.any():
                return denoise(x_t, t, None)
            u, _, grad = with_gradient(lambda x: denoise(x, t.clone(), None), self.log_likelihood, x_t, y)
            alpha, sigma = (expand_as(value, x_t) for value in schedule(t))
            return shift_x0(u, sigma**2 / alpha * (broadcast(scale, x_t) * grad), t, schedule)

        return guided
