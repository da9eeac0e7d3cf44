"""Trained models as files: reading them, rebuilding a model from one, and whether two models fit together."""

from guided_diffusion.checkpoints.compatibility import ModelSpec, check_match
from guided_diffusion.checkpoints.loading import (
    TrainedClassifier,
    TrainedDiffusion,
    check_guidance,
    load,
    load_classifier,
    optional_classifier,
)

__all__ = [
    "ModelSpec",
    "TrainedClassifier",
    "TrainedDiffusion",
    "check_guidance",
    "check_match",
    "load",
    "load_classifier",
    "optional_classifier",
]
