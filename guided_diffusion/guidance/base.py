"""What every guidance has in common: its type, and the meaning of its scale."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise
from guided_diffusion.schedules import Schedule

Scale = float | Tensor
"""``w``, the exponent of p(y|x) in the target p(x) p(y|x)^w: a number, or a tensor of shape (b,).

0 is unconditional, 1 the plain conditional model, above 1 is guided, for every kind of guidance; for
``LimitedInterval`` at the noise levels of its interval.
"""


@runtime_checkable
class Wrapper(Protocol):
    """Anything that turns one denoiser into another: a guidance, a threshold."""

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise: ...


@runtime_checkable
class Guidance(Wrapper, Protocol):
    """A frozen dataclass with a ``scale``, so that ``dataclasses.replace(guidance, scale=w)`` sets it."""

    @property
    def scale(self) -> Scale: ...

    def unguided(self) -> Guidance:
        """The same with the settings at which it changes nothing."""


def check_scale(scale: Scale) -> None:
    """Raise ``ValueError`` unless every scale is finite and there is one, or one for each sample."""
    try:
        values = torch.as_tensor(scale)
    except (TypeError, RuntimeError) as error:
        raise ValueError(f"scale must be a number, got {scale!r}") from error
    if values.ndim > 1:
        raise ValueError(f"scale must be a number or have one value per sample, got shape {tuple(values.shape)}")
    if not values.isfinite().all():
        raise ValueError(f"scale must be finite, got {scale}")


def check_length(scale: Tensor, x: Tensor) -> None:
    """Raise ``ValueError`` unless there is one scale, or one for each sample of the batch."""
    if scale.ndim and len(scale) != len(x):
        raise ValueError(f"scale has {len(scale)} values for {len(x)} samples")
