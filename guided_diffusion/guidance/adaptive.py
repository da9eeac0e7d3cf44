"""Adaptive guidance, which ends for a sample when the conditional and the unconditional model agree on it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    along_walk,
    as_scale,
    check_length,
    conditional_and_unconditional,
    rows,
    unless_conditional,
)
from guided_diffusion.guidance.classifier_free import ClassifierFree
from guided_diffusion.guidance.weak import extrapolate
from guided_diffusion.samplers.walk import OncePerStep, Walk
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class Adaptive(Guidance):
    """``u + w (c - u)`` until the cosine of c and u in x0 is above ``bound``, and c in all steps after that.

    The cosine is that of each sample at the first evaluation of a step. Once ended, guidance does not resume, and the
    sample takes one evaluation instead of two; for this the host reads the cosines once a step. Because the last steps
    take c, w = 0 is not the unconditional model, and costs as much as other scales.

    The authors measure eps, whose cosine is nearly 1 at t = 1, so that with exact models guidance never begins; x0 is
    what public ports measure. See Castillo et al. 2023 (arXiv 2312.12487); the paper was not read.

    Args:
        scale: w, a number or a tensor of shape (b,); at 1 there is no guidance.
        bound: The cosine above which guidance ends, in [-1, 1]; at 1 it is ``ClassifierFree``.

    Raises:
        ValueError: If a scale is not finite or the bound outside of [-1, 1]; when called, outside of a sampler.
    """

    as_classifier_free: ClassVar[dict[str, object]] = {"bound": 1.0}

    scale: Scale = 1.0
    bound: float = 0.991

    def __post_init__(self) -> None:
        super().__post_init__()
        if not -1 <= self.bound <= 1:
            raise ValueError(f"bound must be in [-1, 1], got {self.bound}")

    def counted_as(self) -> Guidance:
        """Return a method with the largest number of evaluations; how many are saved depends on the samples."""
        return ClassifierFree(unless_conditional(as_scale(self.scale)))

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        scale, steps = as_scale(self.scale), OncePerStep[_Step](walk)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            check_length(scale, x_t)
            step = steps(lambda before: before.next(self.bound) if before else _Step(scale))
            c, u = conditional_and_unconditional(denoise, x_t, t, y, unless_conditional(step.scale))
            if step.cosine is None:
                step.cosine = torch.cosine_similarity(rows(c.x0), rows(u.x0))
            return extrapolate(c, u, step.scale)

        return guided


@dataclass
class _Step:
    """The scales in one step, and the cosines of its first evaluation."""

    scale: Float[Tensor, "*b"]
    cosine: Float[Tensor, " b"] | None = None

    def next(self, bound: float) -> _Step:
        """Return the next step, with w = 1 for samples whose cosine was above the bound."""
        assert self.cosine is not None
        ended = self.cosine.cpu().clamp(max=1) > bound
        return replace(self, scale=torch.where(ended, 1.0, self.scale), cosine=None)
