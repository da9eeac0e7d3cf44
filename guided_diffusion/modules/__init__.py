"""LightningModules: they draw noise, call a loss and log. The mathematics is elsewhere."""

from guided_diffusion.modules.diffusion import DiffusionModule

__all__ = ["DiffusionModule"]
