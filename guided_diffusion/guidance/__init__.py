"""Guidance methods, which turn one denoiser into another: ``guidance(denoise, schedule) -> denoise``.

Each method is a frozen dataclass in a file of its own. All share the setting ``scale``, the exponent w of p(y|x) in the
target p(x) p(y|x)^w.
"""

from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    Wrapper,
    along_walk,
    check_scale,
    needs_classifier,
    per_evaluation,
)
from guided_diffusion.guidance.classifier import ClassifierGuidance
from guided_diffusion.guidance.classifier_free import ClassifierFree
from guided_diffusion.guidance.combined import Combined
from guided_diffusion.guidance.limited_interval import LimitedInterval
from guided_diffusion.guidance.reconstruction import Reconstruction
from guided_diffusion.guidance.thresholding import Clip, DynamicThreshold, NoThreshold

__all__ = [
    "ClassifierFree",
    "ClassifierGuidance",
    "Clip",
    "Combined",
    "DynamicThreshold",
    "Guidance",
    "LimitedInterval",
    "NoThreshold",
    "Reconstruction",
    "Scale",
    "Wrapper",
    "along_walk",
    "check_scale",
    "needs_classifier",
    "per_evaluation",
]
