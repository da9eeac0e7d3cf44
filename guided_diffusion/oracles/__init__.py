"""Exact denoisers, classifiers and guidance targets of Gaussian mixtures, to test guidance and samplers against."""

from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.oracles.powered_mixture import PoweredMixture

__all__ = ["GaussianMixture", "PoweredMixture"]
