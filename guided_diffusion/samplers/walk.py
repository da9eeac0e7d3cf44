"""A walk is one run of a sampler; a guidance may follow it to keep a state, draw noise or look at the next time."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Generic, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.samplers.grids import Grid
from guided_diffusion.samplers.noise import Draw
from guided_diffusion.schedules import Samples, Times, to_device

T = TypeVar("T")

Scale = float | Tensor
"""``w``, the exponent of p(y|x) in the target p(x) p(y|x)^w: a number, or a tensor of shape (b,)."""

Likelihood = Callable[[Tensor, Tensor], Tensor]
"""``likelihood(x0, y)`` returns ``log p(y | x0)`` of each clean sample, 0 for one without a label."""


class Walk:
    """One run of a sampler: its times, its current step and evaluation, and the noise of each guidance.

    Iterating over it yields the pairs of neighbouring times, one for each step.

    Args:
        times: The grid of the run, or for a single evaluation outside of a sampler the time of each sample.
        draw: The noise of the sampler.
    """

    def __init__(self, times: Grid, draw: Draw = torch.randn) -> None:
        self.times = times
        self.t: Float[Tensor, "*b"] = times
        """The time of the evaluation, in float64 on the CPU, so that the host can compare it without waiting."""
        self._step: int | None = None
        self._draw = draw

    def __iter__(self) -> Iterator[tuple[Float[Tensor, ""], Float[Tensor, ""]]]:
        for step, ends in enumerate(pairwise(self.times)):
            self._step = step
            yield ends

    @property
    def step(self) -> int:
        """The number of the step, from 0; a second evaluation, as in Heun's method, belongs to the same step.

        Raises:
            ValueError: Outside of a sampler.
        """
        if self._step is None:
            raise ValueError(
                "this guidance follows a sampler from step to step: call begin(denoise, walk) of "
                "guided_diffusion.samplers before the first step, as the samplers do"
            )
        return self._step

    @property
    def ends(self) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The times before and after the step; raises as ``step`` does."""
        return self.times[self.step], self.times[self.step + 1]

    def noise(self, name: str) -> Draw:
        """Return a source of standard normal noise for the guidance of this ``name``.

        The noise of a sample depends on the seed, the index of the sample and the name; drawing it does not change the
        noise of the sampler. For a ``draw`` other than ``SampleNoise`` the state of torch's generator is the seed.
        """
        named = getattr(self._draw, "named", None)
        if named:
            return named(name)
        seed = zlib.crc32(name.encode(), zlib.crc32(torch.get_rng_state().numpy().tobytes()))
        generator = torch.Generator().manual_seed(seed)
        return lambda shape: torch.randn(shape, generator=generator)


def begin(denoise: Denoise, walk: Walk) -> Denoise:
    """Return ``denoise`` at the beginning of a walk; a denoiser that doesn't follow walks is returned as it is."""
    begun = getattr(denoise, "begin", None)
    return begun(walk) if begun else denoise


def at_scale(denoise: Denoise, scale: Scale) -> Denoise:
    """Return a guided denoiser with another guidance scale, for samplers that use several scales.

    Raises:
        ValueError: If the denoiser is not guided.
    """
    rescaled = getattr(denoise, "at", None)
    if not rescaled:
        raise ValueError("this sampler needs a guided denoiser: wrap it in a guidance, for instance ClassifierFree")
    return rescaled(scale)


def scale_of(denoise: Denoise) -> Scale:
    """Return the guidance scale of a guided denoiser; raises as ``at_scale`` does."""
    at_scale(denoise, 1.0)
    return denoise.scale  # type: ignore[attr-defined]


def likelihood_of(denoise: Denoise) -> Likelihood:
    """Return the likelihood by which a guidance guides the denoiser.

    Raises:
        ValueError: If no guidance with a likelihood guides it.
    """
    likelihood = getattr(denoise, "likelihood", None)
    if not likelihood:
        raise ValueError("this sampler needs a guidance by p(y | x0), the likelihood of clean samples: reconstruction")
    return likelihood


@dataclass(frozen=True)
class Wrapped:
    """A denoiser inside a guidance, a threshold or another wrapper that follows the walk of a sampler.

    It has no state itself: ``begin`` makes the denoiser of one walk. A call without ``begin`` is an evaluation outside
    of a sampler.

    Args:
        denoise: The denoiser inside.
        follow: A function ``follow(denoise, walk) -> Denoise``, which wraps the denoiser for one walk.
        rescale: A function that returns this denoiser with another guidance scale; ``None`` if the wrapper is not a
            guidance, in which case the scale is that of the denoiser inside.
        guidance_scale: The guidance scale, if the wrapper is a guidance.
        guidance_likelihood: The likelihood of a label given a clean sample, if the wrapper guides by one.
    """

    denoise: Denoise
    follow: Callable[[Denoise, Walk], Denoise]
    rescale: Callable[[Scale], Denoise] | None = None
    guidance_scale: Scale | None = None
    guidance_likelihood: Likelihood | None = None

    def begin(self, walk: Walk) -> Denoise:
        """Return the denoiser of this walk."""
        return self.follow(begin(self.denoise, walk), walk)

    def __call__(self, x_t: Samples, t: Times, y: Labels) -> Prediction:
        return self.begin(Walk(t.cpu().double()))(x_t, t, y)

    @property
    def scale(self) -> Scale:
        """The guidance scale; raises as ``scale_of`` does."""
        return scale_of(self.denoise) if self.guidance_scale is None else self.guidance_scale

    @property
    def likelihood(self) -> Likelihood:
        """The likelihood by which the denoiser is guided; raises as ``likelihood_of`` does."""
        return self.guidance_likelihood or likelihood_of(self.denoise)

    def at(self, scale: Scale) -> Denoise:
        """Return this denoiser with another guidance scale; raises as ``at_scale`` does."""
        return self.rescale(scale) if self.rescale else replace(self, denoise=at_scale(self.denoise, scale))


def split_guidance(denoise: Denoise) -> tuple[Denoise, Callable[[Denoise], Denoise]]:
    """Return the guided denoiser inside, and a function that puts the wrappers around it around another denoiser.

    These are thresholds and other wrappers without a scale of their own.
    """
    if not isinstance(denoise, Wrapped) or denoise.rescale:
        return denoise, lambda other: other
    guided, around = split_guidance(denoise.denoise)
    return guided, lambda other: replace(denoise, denoise=around(other))


class OncePerStep(Generic[T]):
    """A value that is made at the first evaluation of each step and used again at the others of the step."""

    def __init__(self, walk: Walk) -> None:
        self._walk = walk
        self._step: int | None = None
        self._value: T | None = None

    def __call__(self, make: Callable[[T | None], T]) -> T:
        """Return the value of this step: ``make(value of the step before)``, which is ``None`` in the first step."""
        if self._value is None or self._step != self._walk.step:
            self._value, self._step = make(self._value), self._walk.step
        return self._value


class Carried(Generic[T]):
    """A value that each step hands on to the next; all evaluations of a step see it as the step before left it."""

    def __init__(self, walk: Walk) -> None:
        self._ends = OncePerStep[tuple[T, T]](walk)

    def __call__(self, start: T, advance: Callable[[T], T]) -> T:
        """Return the value before this step, in the first step ``start``; the first evaluation advances it."""

        def make(step_before: tuple[T, T] | None) -> tuple[T, T]:
            value = step_before[1] if step_before else start
            return value, advance(value)

        return self._ends(make)[0]


def predict(denoise: Denoise, walk: Walk, x: Samples, t: Float[Tensor, ""], y: Labels) -> Prediction:
    """Return the prediction at t, the time at one end of the step.

    At t = 0 a sample is its own x0, and eps is evaluated at the other end of the step.
    """
    if t > 0:
        return _evaluate(denoise, walk, x, t, y)
    before, after = walk.ends
    return Prediction(x, _evaluate(denoise, walk, x, after if before == 0 else before, y).eps)


def _evaluate(denoise: Denoise, walk: Walk, x: Samples, t: Float[Tensor, ""], y: Labels) -> Prediction:
    rounded = t.to(x.dtype)
    walk.t = rounded.double()
    return denoise(x, to_device(rounded, x).expand(len(x)), y)
