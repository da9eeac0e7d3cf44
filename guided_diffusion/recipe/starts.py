"""What sampling starts from in place of pure noise: given samples, some of their pixels, or the noise found for them.

A start is a frozen dataclass of tensors with a row for each sample. ``start(run, schedule)`` changes a run before its
first step, and ``start[rows]`` is the start of some samples, so that a batch takes its own.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.samplers import Grid, times_from
from guided_diffusion.schedules import Samples, Schedule, perturb

Rows = Int[Tensor, " rows"]


class Run(NamedTuple):
    """What a sampler needs to begin."""

    denoise: Denoise
    x: Samples
    """The samples at the first time; without a start, the noise of each."""
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
    """Given samples, noised to the time ``strength``: the steps below it remain (SDEdit, arXiv 2108.01073).

    Args:
        samples: The given samples, in [-1, 1].
        strength: The time t at which sampling starts, in (0, 1]. At 1 it starts from pure noise, as without a start.

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
    """Given samples of which some values are drawn anew and the others are kept.

    Before each evaluation of the denoiser the kept values are replaced by the given ones at that level of noise,
    ``alpha x_0 + sigma eps``, where ``eps`` is the sample's first noise; their estimate is the given ``x_0``. So every
    sampler ends with exactly the given values. This is RePaint (arXiv 2201.09865, eq. 8) without its resampling.

    Args:
        samples: The given samples, in [-1, 1].
        unknown: Which values are drawn.
        strength: The time at which sampling starts, as for ``ImageToImage``.
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

        def inpainted(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            x_t = torch.where(unknown, x_t, perturb(given, eps, t, schedule))
            drawn = run.denoise(x_t, t, y)
            return Prediction(torch.where(unknown, drawn.x0, given), torch.where(unknown, drawn.eps, eps))

        return ImageToImage(self.samples, self.strength)(run._replace(denoise=inpainted), schedule)


@dataclass(frozen=True)
class Inversion:
    """Given samples, from which a deterministic sampler goes to the noise that it would make them of.

    The grid is walked in reverse (DDIM inversion, Song et al. 2021, arXiv 2010.02502, section 5.4, with ``ddim``).
    """

    samples: Float[Tensor, "n *shape"]

    def __getitem__(self, rows: Rows) -> Inversion:
        return replace(self, samples=self.samples[rows])

    def __call__(self, run: Run, schedule: Schedule) -> Run:
        return run._replace(x=self.samples.to(run.x), times=run.times.flip(0))


@dataclass(frozen=True)
class FromNoise:
    """The noise of each sample at t = 1, given instead of drawn: with that of ``Inversion``, a reconstruction."""

    noise: Float[Tensor, "n *shape"]

    def __getitem__(self, rows: Rows) -> FromNoise:
        return replace(self, noise=self.noise[rows])

    def __call__(self, run: Run, schedule: Schedule) -> Run:
        return run._replace(x=self.noise.to(run.x))
