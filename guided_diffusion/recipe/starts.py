"""Starts of sampling in place of pure noise: given samples, some of their values, or noise found for them.

A start is a frozen dataclass of tensors with a row for each sample. ``start(run, schedule)`` changes a run before its
first step, and ``start[rows]`` is the start of the samples of one batch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.samplers import Grid, Walk, Wrapped, times_from
from guided_diffusion.schedules import Samples, Schedule, perturb

Rows = Int[Tensor, " rows"]


class Run(NamedTuple):
    """The denoiser, the samples and the times with which a sampler begins."""

    denoise: Denoise
    x: Samples
    """The samples at the first time; without a start, pure noise."""
    times: Grid


@runtime_checkable
class Start(Protocol):
    """A start of sampling."""

    def __getitem__(self, rows: Rows) -> Start:
        """Return the start of some of the samples."""

    def __call__(self, run: Run, schedule: Schedule) -> Run:
        """Return the run that begins here; ``run`` begins with pure noise."""


@dataclass(frozen=True)
class ImageToImage:
    """A start from given samples, noised to the time ``strength`` (SDEdit, arXiv 2108.01073).

    Args:
        samples: The given samples, in [-1, 1].
        strength: The time t at which sampling starts, in (0, 1]; 1 is the same as no start, pure noise.

    Raises:
        ValueError: If the strength is not in (0, 1].
    """

    samples: Float[Tensor, "n *shape"]
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.strength <= 1:
            raise ValueError(f"strength must be in (0, 1], got {self.strength}")

    def __getitem__(self, rows: Rows) -> ImageToImage:
        return replace(self, samples=self.samples[rows])

    def __call__(self, run: Run, schedule: Schedule) -> Run:
        if self.strength == 1:
            return run
        t = torch.full((len(run.x),), self.strength, dtype=torch.float64).to(run.x)
        x = perturb(self.samples.to(run.x), run.x, t, schedule)
        return run._replace(x=x, times=times_from(self.strength, run.times))


@dataclass(frozen=True)
class Inpainting:
    """A start from which some values of given samples are drawn anew and the others are kept.

    Before each evaluation of the denoiser the kept values are replaced by the given ones at that level of noise,
    ``alpha x_0 + sigma eps``, where ``eps`` is the sample's first noise, and their estimate by the given ``x_0``. So
    every sampler ends with exactly the given values. This is RePaint (arXiv 2201.09865, eq. 8) without its resampling.

    Args:
        samples: The given samples, in [-1, 1].
        unknown: Whether each value is drawn.
        strength: The time at which sampling starts, as for ``ImageToImage``.

    Raises:
        ValueError: If the strength is not in (0, 1].
    """

    samples: Float[Tensor, "n *shape"]
    unknown: Bool[Tensor, "n *shape"]
    strength: float = 1.0

    def __post_init__(self) -> None:
        ImageToImage(self.samples, self.strength)

    def __getitem__(self, rows: Rows) -> Inpainting:
        return replace(self, samples=self.samples[rows], unknown=self.unknown[rows])

    def __call__(self, run: Run, schedule: Schedule) -> Run:
        given, unknown, eps = self.samples.to(run.x), self.unknown.to(run.x.device), run.x

        def inpainting(denoise: Denoise, walk: Walk) -> Denoise:
            def inpainted(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
                x_t = torch.where(unknown, x_t, perturb(given, eps, t, schedule))
                drawn = denoise(x_t, t, y)
                return Prediction(torch.where(unknown, drawn.x0, given), torch.where(unknown, drawn.eps, eps))

            return inpainted

        inpainted = run._replace(denoise=Wrapped(run.denoise, inpainting))
        return ImageToImage(self.samples, self.strength)(inpainted, schedule)


@dataclass(frozen=True)
class Inversion:
    """A start from given samples, from which a deterministic sampler goes in reverse to the noise that they come from.

    The times of the grid rise (with ``ddim`` this is DDIM inversion, Song et al. 2021, arXiv 2010.02502, section 5.4).
    """

    samples: Float[Tensor, "n *shape"]

    def __getitem__(self, rows: Rows) -> Inversion:
        return replace(self, samples=self.samples[rows])

    def __call__(self, run: Run, schedule: Schedule) -> Run:
        return run._replace(x=self.samples.to(run.x), times=run.times.flip(0))


@dataclass(frozen=True)
class FromNoise:
    """A start from given noise at t = 1; with the noise that ``Inversion`` finds, it reconstructs the samples."""

    noise: Float[Tensor, "n *shape"]

    def __getitem__(self, rows: Rows) -> FromNoise:
        return replace(self, noise=self.noise[rows])

    def __call__(self, run: Run, schedule: Schedule) -> Run:
        return run._replace(x=self.noise.to(run.x))
