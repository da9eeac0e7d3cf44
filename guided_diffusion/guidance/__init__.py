"""Guidance methods, which turn one denoiser into another: ``guidance(denoise, schedule) -> denoise``.

Each method is a frozen dataclass in a file of its own. All have the setting ``scale``, the exponent w of p(y|x) in the
target p(x) p(y|x)^w unless a method says otherwise.
"""

from guided_diffusion.guidance.adam_classifier import AdamClassifier
from guided_diffusion.guidance.adaptive import Adaptive
from guided_diffusion.guidance.adaptive_projected import AdaptiveProjected
from guided_diffusion.guidance.angle_domain import AngleDomain
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
from guided_diffusion.guidance.cfgpp import CFGPlusPlus
from guided_diffusion.guidance.classifier import ClassifierGuidance
from guided_diffusion.guidance.classifier_free import ClassifierFree
from guided_diffusion.guidance.combined import Combined
from guided_diffusion.guidance.composition import Composition
from guided_diffusion.guidance.condition_annealed import ConditionAnnealed
from guided_diffusion.guidance.feedback import Feedback
from guided_diffusion.guidance.frequency_decoupled import FrequencyDecoupled
from guided_diffusion.guidance.independent_condition import IndependentCondition
from guided_diffusion.guidance.joint_temperature import JointTemperature
from guided_diffusion.guidance.limited_interval import LimitedInterval
from guided_diffusion.guidance.magnitude_aware import MagnitudeAware
from guided_diffusion.guidance.momentum import MomentumGuidance
from guided_diffusion.guidance.perturbed_attention import PerturbedAttention
from guided_diffusion.guidance.power_law import PowerLaw
from guided_diffusion.guidance.reconstruction import Reconstruction
from guided_diffusion.guidance.rescaled import Rescaled
from guided_diffusion.guidance.score_rescaling import ScoreRescaling
from guided_diffusion.guidance.self_guidance import SelfGuidance
from guided_diffusion.guidance.sliding_window import SlidingWindow
from guided_diffusion.guidance.tangential_damping import TangentialDamping
from guided_diffusion.guidance.thresholding import Clip, DynamicThreshold, NoThreshold
from guided_diffusion.guidance.weight_schedule import WeightSchedule
from guided_diffusion.guidance.zero_star import ZeroStar

__all__ = [
    "AdamClassifier",
    "Adaptive",
    "AdaptiveProjected",
    "AngleDomain",
    "Autoguidance",
    "CFGPlusPlus",
    "ClassifierFree",
    "ClassifierGuidance",
    "Clip",
    "Combined",
    "Composition",
    "ConditionAnnealed",
    "DynamicThreshold",
    "Feedback",
    "FrequencyDecoupled",
    "Guidance",
    "IndependentCondition",
    "JointTemperature",
    "LimitedInterval",
    "MagnitudeAware",
    "MomentumGuidance",
    "NoThreshold",
    "PerturbedAttention",
    "PowerLaw",
    "Reconstruction",
    "Rescaled",
    "Scale",
    "ScoreRescaling",
    "SelfGuidance",
    "SlidingWindow",
    "TangentialDamping",
    "WeightSchedule",
    "Wrapper",
    "ZeroStar",
    "along_walk",
    "check_scale",
    "needs_classifier",
    "needs_weak",
    "per_evaluation",
]
