"""Feedback guidance (FBG), whose scale follows the posterior of the class along the path of each sample."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels, Prediction
from guided_diffusion.guidance.base import (
    Guidance,
    Scale,
    along_walk,
    as_scale,
    check_length,
    conditional_and_unconditional,
    rows,
)
from guided_diffusion.guidance.classifier_free import ClassifierFree, classifier_free
from guided_diffusion.guidance.weak import extrapolate
from guided_diffusion.samplers.grids import Grid
from guided_diffusion.samplers.walk import OncePerStep, Walk
from guided_diffusion.schedules import Schedule, to_device

Rows = Float[Tensor, "b d"]

BOTH = 2.0
"""A scale at which ``conditional_and_unconditional`` evaluates both predictions."""


@dataclass(frozen=True)
class Feedback(Guidance):
    """``u + (lambda + w - 1) (c - u)`` with ``lambda = e^L / (e^L - (1 - pi))``; L estimates ``log p(y|x) - log p(y)``.

    L begins at 0, and after a step from x to x' of ``z = x / alpha``, with ``r = sigma / alpha``,

        L <- clamp(L - tau (|z' - m_c|^2 - |z' - m_u|^2) / (2 s^2) + delta, L_min, 3)
        m = z r'^2 / r^2 + x0 (1 - r'^2 / r^2),    s^2 = (r^2 - r'^2) r'^2 / r^2

    where ``m_c, m_u, s^2`` are the means and the variance of a step of ``ddpm``. With tau = 1 and delta = 0 the change
    of L is that of log p(y|x), for small steps of a sampler with the noise of ``ddpm``, such as ``sde_dpmpp_2m``. A
    deterministic path (``ddim``, ``heun``, ``dpmpp_2m``) tells little of the class in this way, so L hardly moves but
    by delta. ``L_min = log((1 - pi) lambda_max / (lambda_max - 1))``, so that lambda
    is at most lambda_max. The model's c is taken for a mixture of the true one and u, which is why lambda is large
    where the class is unlikely. The defaults of tau and delta are for images; for points, where a class gives less
    evidence, they drive lambda to its bound.

    See Koulischer et al. 2025 (arXiv 2506.06085, algorithm 1) and the authors' code. With w other than 1 it is their
    mixture with classifier-free guidance; they lower ``lambda_max`` by w - 1 there, which is not done here.

    Args:
        scale: w, a number or a tensor of shape (b,); 1 is feedback guidance alone, not the conditional model.
        pi: The trust in the conditional model, in (0, 1]; 1 is ``ClassifierFree`` at w.
        lambda_max: The largest lambda, above 1.
        t0: The share of the steps, in [0, 1), that is left when lambda reaches 3 if L moves by delta alone.
        t1: The share of the steps, in [0, 1), that is left where ``|z' - m_c|^2`` must be 10 below ``|z' - m_u|^2`` to
            make up for delta.
        tau: The temperature; by default from t1.
        delta: The change of L in each step; by default from t0.

    Raises:
        ValueError: If a scale is not finite or another setting outside of its range; when called, outside of a sampler
            or along rising times.
    """

    as_classifier_free: ClassVar[dict[str, object]] = {"pi": 1.0}

    scale: Scale = 1.0
    pi: float = 0.95
    lambda_max: float = 10.0
    t0: float = 0.5
    t1: float = 0.4
    tau: float | None = None
    delta: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.pi <= 1:
            raise ValueError(f"pi must be in (0, 1], got {self.pi}")
        if not 1 < self.lambda_max < math.inf:
            raise ValueError(f"lambda_max must be above 1 and finite, got {self.lambda_max}")
        for name, share in (("t0", self.t0), ("t1", self.t1)):
            if not 0 <= share < 1:
                raise ValueError(f"{name} must be in [0, 1), got {share}")
        if self.tau is not None and not 0 <= self.tau < math.inf:
            raise ValueError(f"tau must be at least 0 and finite, got {self.tau}")
        if self.delta is not None and not math.isfinite(self.delta):
            raise ValueError(f"delta must be finite, got {self.delta}")

    def unguided(self) -> Feedback:
        return replace(self, scale=1.0, pi=1.0)

    def counted_as(self) -> Guidance:
        return ClassifierFree(self.scale if self.pi == 1 else BOTH)

    @along_walk
    def __call__(self, denoise: Denoise, schedule: Schedule, walk: Walk) -> Denoise:
        scale, steps = as_scale(self.scale), OncePerStep[_Step](walk)
        settings = OncePerStep[tuple[float, float]](walk)

        def guided(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            if self.pi == 1:
                return classifier_free(denoise, x_t, t, y, scale)
            check_length(scale, x_t)
            tau, delta = settings(lambda known: known or self._tau_and_delta(schedule, walk.times))
            alpha, sigma = (value.item() for value in schedule(walk.ends[0]))
            step = steps(lambda before: self._step(before, rows(x_t) / alpha, sigma / alpha, tau, delta))
            c, u = conditional_and_unconditional(denoise, x_t, t, y, as_scale(BOTH))
            step.predicted = step.predicted or (rows(c.x0), rows(u.x0))
            above_one = 1 / (step.log_posterior - math.log(1 - self.pi)).expm1()
            return extrapolate(c, u, to_device(scale.to(above_one.dtype), above_one) + above_one)

        return guided

    def _step(self, before: _Step | None, z: Rows, r: float, tau: float, delta: float) -> _Step:
        """Return the state of the step that begins at ``z`` and the noise level ``r``."""
        log_posterior = z.new_zeros(len(z))
        if before:
            log_posterior = before.log_posterior + tau * before.log_ratio(z, r) + delta
        lowest = math.log(1 - self.pi) - math.log1p(-1 / self.lambda_max)
        return _Step(log_posterior.clamp(lowest, 3), z, r)

    def _tau_and_delta(self, schedule: Schedule, times: Grid) -> tuple[float, float]:
        """Return tau and delta; those that aren't given are computed from ``t1`` and ``t0``."""
        if not (times.diff() < 0).all():
            raise ValueError("feedback guidance needs times that fall in each step, from noise to samples")
        alpha, sigma = schedule(times)
        before, after = ((sigma / alpha) ** 2).unfold(0, 2, 1).T
        variances = ((before - after) * after / before).flip(0)
        n = len(variances)
        delta = math.log((1 - self.pi) * 1.5) / ((1 - self.t0) * n) if self.delta is None else self.delta
        place = min(self.t1 * n, n - 1)
        around = variances[int(place)], variances[math.ceil(place)]
        tau = abs(2 * torch.lerp(*around, place % 1).item() * delta / 10) if self.tau is None else self.tau
        return tau, delta


@dataclass
class _Step:
    """The state of a step: the estimate L, ``z = x / alpha`` and the noise level r at its start, and x0 of c and u."""

    log_posterior: Float[Tensor, " b"]
    z: Rows
    r: float
    predicted: tuple[Rows, Rows] | None = None

    def log_ratio(self, z: Rows, r: float) -> Float[Tensor, " b"]:
        """Return ``log N(z; m_c, s^2) - log N(z; m_u, s^2)`` for the step to ``z`` at noise level ``r``."""
        assert self.predicted
        c, u = self.predicted
        kept = (r / self.r) ** 2
        shift = (1 - kept) * (c - u)
        from_unconditional = z - (kept * self.z + (1 - kept) * u)
        return (shift * (2 * from_unconditional - shift)).sum(1) / (2 * self.r**2 * (1 - kept) * kept)
