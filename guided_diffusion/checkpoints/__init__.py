"""Trained models as files: reading them, rebuilding a model from one, and whether two models fit together."""

from guided_diffusion.checkpoints.compatibility import ModelSpec, check_match
from guided_diffusion.checkpoints.loading import (
    TrainedClassifier,
    TrainedDiffusion,
    check_guidance,
    classifier_guidance,
    combined_guidance,
    load,
    load_classifier,
)

__all__ = [
    "ModelSpec",
    "TrainedClassifier",
    "TrainedDiffusion",
    "check_guidance",
    "check_match",
    "classifier_guidance",
    "combined_guidance",
    "load",
    "load_classifier",
]
