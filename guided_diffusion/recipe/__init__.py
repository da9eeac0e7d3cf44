"""Recipes: a guidance, a threshold and a sampler together, and the starts that may replace pure noise."""

from guided_diffusion.recipe.recipe import Recipe, eval_mode
from guided_diffusion.recipe.starts import FromNoise, ImageToImage, Inpainting, Inversion, Run, Start

__all__ = ["FromNoise", "ImageToImage", "Inpainting", "Inversion", "Recipe", "Run", "Start", "eval_mode"]
