"""Trained models on disk: reading and exporting files, rebuilding models, and checking that two models match."""

from guided_diffusion.checkpoints.compatibility import ModelSpec, check_guidance, check_match
from guided_diffusion.checkpoints.loading import (
    TrainedClassifier,
    TrainedDiffusion,
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
