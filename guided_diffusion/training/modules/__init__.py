"""The LightningModules: they draw noise, call a loss and log. The mathematics is in the core modules."""

from guided_diffusion.training.modules.base import NoisyTraining
from guided_diffusion.training.modules.classifier import ClassifierModule
from guided_diffusion.training.modules.diffusion import DiffusionModule

__all__ = ["ClassifierModule", "DiffusionModule", "NoisyTraining"]
