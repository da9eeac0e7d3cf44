"""The exact law of what a sampler makes of a Gaussian, without random numbers."""

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise
from guided_diffusion.samplers import Step
from guided_diffusion.schedules import Schedule

F64 = torch.float64


def exact_law(
    method: Callable[..., Iterator[Step]],
    oracle: Denoise,
    schedule: Schedule,
    times: Tensor,
    start: tuple[Tensor, Tensor],
) -> tuple[Tensor, Tensor]:
    """Return mean and covariance of the samples that start from a Gaussian with ``start`` as mean and covariance.

    With the oracle of a Gaussian each step is an affine function of the samples and of the noise that is drawn. So one
    row starts from the mean and draws zeros, and each other row differs from it in one coordinate of the start, or of
    the noise of one step, by a standard deviation.
    """
    mean, covariance = start
    size, steps = len(mean), len(times) - 1
    x = mean.repeat(1 + size * (1 + steps), 1)
    values, vectors = torch.linalg.eigh(covariance)
    x[1 : 1 + size] += (vectors * values.clamp(min=0).sqrt()).T
    rows = iter(range(1 + size, len(x), size))

    def draw(shape: torch.Size) -> Tensor:
        noise, row = torch.zeros(shape, dtype=F64), next(rows)
        noise[row : row + size] = torch.eye(size, dtype=F64)
        return noise

    *_, last = method(oracle, schedule, x, times, None, draw)
    effects = last.x[1:] - last.x[0]
    return last.x[0], effects.T @ effects


@pytest.fixture
def law() -> Callable[..., tuple[Tensor, Tensor]]:
    return exact_law


@pytest.fixture
def normal() -> Callable[..., Callable[..., Tensor]]:
    """Return a function that draws in float64 from a generator with a seed."""
    return lambda seed: partial(torch.randn, generator=torch.Generator().manual_seed(seed), dtype=F64)
