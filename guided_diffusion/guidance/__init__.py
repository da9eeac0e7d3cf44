"""Guidance methods, which turn one denoiser into another: ``guidance(denoise, schedule) -> denoise``.

Each method is a frozen dataclass in a file of its own. All share the setting ``scale``, the exponent w of p(y|x) in the
target p(x) p(y|x)^w.
"""

from guided_diffusion.guidance.autoguidance import Autoguidance
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    Wrapper,
    along_walk,
    check_scale,
    needs_classifier,
    needs_weak,
    per_evaluation,
)
from guided_diffusion.guidance.classifier import ClassifierGuidance
from guided_diffusion.guidance.classifier_free import ClassifierFree
from guided_diffusion.guidance.combined import Combined
from guided_diffusion.guidance.composition import Composition
from guided_diffusion.guidance.condition_annealed import ConditionAnnealed
from guided_diffusion.guidance.independent_condition import IndependentCondition
from guided_diffusion.guidance.limited_interval import LimitedInterval
from guided_diffusion.guidance.perturbed_attention import PerturbedAttention
from guided_diffusion.guidance.self_guidance import SelfGuidance
from guided_diffusion.guidance.sliding_window import SlidingWindow
from guided_diffusion.guidance.thresholding import Clip, DynamicThreshold, NoThreshold

__all__ = [
    "Autoguidance",
    "ClassifierFree",
    "ClassifierGuidance",
    "Clip",
    "Combined",
    "Composition",
    "ConditionAnnealed",
    "DynamicThreshold",
    "Guidance",
    "IndependentCondition",
    "LimitedInterval",
    "NoThreshold",
    "PerturbedAttention",
    "Scale",
    "SelfGuidance",
    "SlidingWindow",
    "Wrapper",
    "along_walk",
    "check_scale",
    "needs_classifier",
    "needs_weak",
    "per_evaluation",
]
