"""The effective scale of a guidance: the scale of classifier-free guidance that comes nearest to its predictions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.evaluation.metrics.bootstrap import bootstrap_mean
from guided_diffusion.evaluation.modalities.base import Examination
from guided_diffusion.evaluation.plan import LabelledSamples
from guided_diffusion.evaluation.results import Interval
from guided_diffusion.guidance import Wrapper, per_evaluation
from guided_diffusion.schedules import Samples, Schedule

COLUMNS = ("effective_scale", "residual")
"""The last columns of results.csv with ``effective_scale=true``."""


class EffectiveScale(NamedTuple):
    """The effective scale of each sample, and the relative distance from classifier-free guidance at that scale."""

    scale: Float[Tensor, " b"]
    """``a = <D - u, c - u> / |c - u|^2`` of the guided x0 D; nan where c and u are equal."""
    residual: Float[Tensor, " b"]
    """``|D - u - a (c - u)| / |c - u|``; nan where c and u are equal."""


def effective_scale(guided: Samples, c: Samples, u: Samples) -> EffectiveScale:
    """Return the effective scale of guided estimates of x0, given the conditional and the unconditional ones.

    For ``ClassifierFree`` the scale is w and the residual 0 (arXiv 2602.22570).
    """
    change, difference = ((one.double() - u.double()).flatten(1) for one in (guided, c))
    squared = difference.square().sum(1)
    squared = squared.where(squared > 0, torch.nan)
    scale = (change * difference).sum(1) / squared
    rest = change - scale[:, None] * difference
    return EffectiveScale(scale, (rest.square().sum(1) / squared).sqrt())


@dataclass(frozen=True)
class ScaleMeter:
    """A threshold that also measures the effective scale of the prediction before it, and passes it to ``watch``.

    Every evaluation then costs two more, of ``denoiser``, the model without guidance.
    """

    threshold: Wrapper
    denoiser: Denoise
    watch: Callable[[EffectiveScale], None]

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        return self.threshold(self._measured(denoise, schedule), schedule)

    @per_evaluation
    def _measured(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        def measured(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            prediction = denoise(x_t, t, y)
            c, u = (self.denoiser(x_t, t, labels).x0 for labels in (y, None))
            self.watch(effective_scale(prediction.x0, c, u))
            return prediction

        return measured


def with_effective_scale(examination: Examination, samples: Sequence[LabelledSamples], seed: int) -> Examination:
    """Return the examination with the means over the samples of each scale that have an effective scale."""
    findings = []
    for finding, of_scale in zip(examination.findings, samples, strict=True):
        values = of_scale.counted.guidance
        assert values is not None
        known = values[values.isfinite().all(1)]
        means = {
            name: bootstrap_mean(column, seed) if len(known) else Interval(math.nan, math.nan, math.nan)
            for name, column in zip(COLUMNS, known.T, strict=True)
        }
        findings.append(finding._replace(measured={**finding.measured, **means}))
    return examination._replace(findings=findings, columns=(*examination.columns, *COLUMNS))


def mean_of(measured: list[EffectiveScale]) -> EffectiveScale:
    """Return the mean of each sample over the evaluations of a walk, without those where c and u are equal."""
    scales, residuals = (torch.stack(values).nanmean(0).cpu() for values in zip(*measured, strict=True))
    return EffectiveScale(scales, residuals)
