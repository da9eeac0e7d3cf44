"""Inner products, norms and projections of each sample, and changes of a prediction in its flow velocity."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance.base import rows, shift_x0
from guided_diffusion.schedules import Samples, Schedule, Times, expand_as

PerSample = Float[Tensor, "b ..."]
"""One number for each sample, in float32 or better, shaped to multiply the samples."""


def inner(a: Samples, b: Samples) -> PerSample:
    """Return the inner product of ``a`` and ``b``, sample by sample."""
    return expand_as((rows(a) * rows(b)).sum(1), a)


def norm(a: Samples) -> PerSample:
    """Return the norm of each sample."""
    return inner(a, a).sqrt()


def std(a: Samples) -> PerSample:
    """Return the standard deviation over the d dimensions of each sample, with the divisor d."""
    return expand_as(rows(a).std(1, correction=0), a)


def ratio(a: PerSample, b: PerSample) -> PerSample:
    """Return ``a / b`` for ``b >= 0``. Where b is 0 it is 0 if a is 0, and else very large or infinite."""
    return a / b.clamp(min=torch.finfo(b.dtype).tiny)


def project(a: Samples, direction: Samples) -> Samples:
    """Return the part of each sample of ``a`` along ``direction``, and 0 where ``direction`` is 0."""
    return ratio(inner(a, direction), inner(direction, direction)).to(a.dtype) * direction


def flow_velocity(prediction: Prediction) -> Samples:
    """Return ``f = eps - x0``, the velocity of flow matching at ``x_t / (alpha + sigma)``."""
    return prediction.eps - prediction.x0


def shift_velocity(prediction: Prediction, change: Samples, t: Times, schedule: Schedule) -> Prediction:
    """Return a prediction with ``f + change`` at the same x_t, where ``x0 = (x_t - sigma f) / (alpha + sigma)``."""
    alpha, sigma = (expand_as(value, change) for value in schedule(t))
    return shift_x0(prediction, -(sigma / (alpha + sigma)) * change, t, schedule)


def check_images(name: str, x: Samples) -> None:
    """Raise ``ValueError`` in the name of a method unless the samples are images."""
    if x.ndim != 4:
        raise ValueError(
            f"{name} is for images of shape (channels, height, width), got samples of {tuple(x.shape[1:])}"
        )
