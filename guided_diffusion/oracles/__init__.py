"""Exact denoisers, classifiers and targets: the ground truth against which guidance and samplers are tested."""

from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.oracles.powered_mixture import PoweredMixture

__all__ = ["GaussianMixture", "PoweredMixture"]
