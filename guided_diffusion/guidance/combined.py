"""Classifier-free and classifier guidance together."""

from __future__ import annotations

from dataclasses import dataclass, replace

from guided_diffusion.classifiers import Classify
from guided_diffusion.denoisers import Denoise
from guided_diffusion.guidance.base import Scale
from guided_diffusion.guidance.classifier import ClassifierGuidance
from guided_diffusion.guidance.classifier_free import ClassifierFree
from guided_diffusion.schedules import Schedule


@dataclass(frozen=True)
class Combined:
    """``u + w (c - u)``, then ``eps - (w' - 1) sigma grad log p(y | x_t)``: the exponent of p(y|x) is w + w' - 1.

    Each family has a scale of its own, neutral at 1, so ``scale`` alone is not the whole exponent here: with
    w' = 1 this is ``ClassifierFree``, with w = 1 it is ``ClassifierGuidance`` on a conditional base.

    Args:
        classifier: ``classifier(x_t, t) -> logits``.
        scale: w, of classifier-free guidance, a number or a tensor of shape (b,).
        classifier_scale: w', of classifier guidance on top of it, likewise.
        temperature: of the classifier's softmax; 1 is the classifier as trained.

    Raises:
        ValueError: as ``ClassifierGuidance`` does.
    """

    classifier: Classify | None = None
    scale: Scale = 1.0
    classifier_scale: Scale = 1.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        self._parts()

    def _parts(self) -> tuple[ClassifierFree, ClassifierGuidance]:
        by_classifier = ClassifierGuidance(self.classifier, self.classifier_scale, "conditional", self.temperature)
        return ClassifierFree(self.scale), by_classifier

    def unguided(self) -> Combined:
        return replace(self, scale=1.0, classifier_scale=1.0)

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        classifier_free, by_classifier = self._parts()
        return by_classifier(classifier_free(denoise, schedule), schedule)
