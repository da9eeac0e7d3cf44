"""Trained models on disk: reading and exporting files, rebuilding models, and checking that two models match."""

from guided_diffusion.checkpoints.compatibility import check_guidance, check_match
from guided_diffusion.checkpoints.judge_file import JudgeClassifier
from guided_diffusion.checkpoints.loading import (
    LateClassifier,
    TrainedClassifier,
    TrainedDiffusion,
    load,
    load_classifier,
    optional_classifier,
    optional_weak_model,
)
from guided_diffusion.checkpoints.record import ModelSpec

__all__ = [
    "JudgeClassifier", "LateClassifier", "ModelSpec", "TrainedClassifier", "TrainedDiffusion", "check_guidance",
    "check_match", "load", "load_classifier", "optional_classifier", "optional_weak_model",
]  # fmt: skip
