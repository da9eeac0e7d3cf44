"""LightningModules: they draw noise, call a loss and log. The mathematics is elsewhere."""

from guided_diffusion.modules.base import NoisyTraining
from guided_diffusion.modules.classifier import ClassifierModule
from guided_diffusion.modules.diffusion import DiffusionModule

__all__ = ["ClassifierModule", "DiffusionModule", "NoisyTraining"]
