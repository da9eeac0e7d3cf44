"""Classifier-free and classifier guidance together."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

from guided_diffusion.classifiers import Classify
from guided_diffusion.denoisers import Denoise
from guided_diffusion.guidance.base import Guidance, Scale, along_walk, check_interval
from guided_diffusion.guidance.classifier import ClassifierGuidance
from guided_diffusion.guidance.classifier_free import ClassifierFree
from guided_diffusion.samplers.walk import Walk, begin
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class Combined(Guidance):
    """``eps = u + w (c - u) - (w' - 1) sigma grad log p(y | x_t)``: the exponent of p(y|x) is w + w' - 1.

    Both scales are neutral at 1: with w' = 1 it is ``ClassifierFree``, and with w = 1 ``ClassifierGuidance`` on a
    conditional base.

    Args:
        scale: w, the scale of classifier-free guidance, a number or a tensor of shape (b,).
        classifier_scale: w', the scale of classifier guidance, likewise.
        classifier_sigma_lo: The noise level ``sigma / alpha`` up to which w' is 1.
        classifier_sigma_hi: The noise level above which w' is 1. By default w' holds at every noise level.

    Other arguments and errors are those of ``ClassifierGuidance``.
    """

    needs_classifier: ClassVar[bool] = True

    classifier: Classify | None = None
    scale: Scale = 1.0
    classifier_scale: Scale = 1.0
    temperature: float = 1.0
    classifier_sigma_lo: float = 0.0
    classifier_sigma_hi: float = math.inf

    def __post_init__(self) -> None:
        check_interval(self.classifier_sigma_lo, self.classifier_sigma_hi, "classifier_")
        self._parts()

    def unguided(self) -> Combined:
        return replace(self, scale=1.0, classifier_scale=1.0)

    def with_classifier(self, classifier: Classify) -> Combined:
        return replace(self, classifier=classifier)

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        classifier_free, by_classifier = self._parts()
        return begin(by_classifier(classifier_free(denoise, schedule), schedule), walk)

    def _parts(self) -> tuple[ClassifierFree, ClassifierGuidance]:
        interval = self.classifier_sigma_lo, self.classifier_sigma_hi
        by_classifier = ClassifierGuidance(
            self.classifier, self.classifier_scale, "conditional", self.temperature, *interval
        )
        return ClassifierFree(self.scale), by_classifier
