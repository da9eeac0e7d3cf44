"""Samplers from noise to samples along a grid of times, the grids themselves, and the noise of each sample.

A sampler is a generator function ``sampler(denoise, schedule, noise, times, labels, draw)`` that yields a ``Step``
for each pair of neighbouring times, so a progress bar or an animation is a ``for`` loop. If the times end at t = 0, the
last step holds the samples:

    *_, last = ddim(denoise, schedule, noise, uniform_times(schedule, 25), labels)
    images = last.x

Along rising times a sampler that draws no noise goes the other way, from samples to the noise that they come from.

Symbols: (alpha, sigma) belong to the time before the step and (alpha', sigma') to the time after it.

No module of this package has the name of a sampler: importing it would replace the function of that name here.
"""

from guided_diffusion.samplers.ancestral import ddpm
from guided_diffusion.samplers.base import Step
from guided_diffusion.samplers.correctors import gibbs, pcg
from guided_diffusion.samplers.grids import (
    Grid,
    karras_times,
    log_snr_times,
    shifted_times,
    times_from,
    uniform_times,
)
from guided_diffusion.samplers.implicit import ddim
from guided_diffusion.samplers.likelihood import with_gradient
from guided_diffusion.samplers.multistep import dpmpp_2m, sde_dpmpp_2m
from guided_diffusion.samplers.noise import Draw, SampleNoise
from guided_diffusion.samplers.populations import feynman_kac, twisted
from guided_diffusion.samplers.runge_kutta import heun
from guided_diffusion.samplers.sampler import Sampler
from guided_diffusion.samplers.walk import (
    Likelihood,
    OncePerStep,
    Scale,
    Walk,
    Wrapped,
    at_scale,
    begin,
    likelihood_of,
    scale_of,
)

__all__ = [
    "Draw",
    "Grid",
    "Likelihood",
    "OncePerStep",
    "SampleNoise",
    "Sampler",
    "Scale",
    "Step",
    "Walk",
    "Wrapped",
    "at_scale",
    "begin",
    "ddim",
    "ddpm",
    "dpmpp_2m",
    "feynman_kac",
    "gibbs",
    "heun",
    "karras_times",
    "likelihood_of",
    "log_snr_times",
    "pcg",
    "scale_of",
    "sde_dpmpp_2m",
    "shifted_times",
    "times_from",
    "twisted",
    "uniform_times",
    "with_gradient",
]
