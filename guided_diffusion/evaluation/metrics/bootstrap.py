"""The resampling behind the confidence intervals of all measures but shares, which are in ``shares.py``.

The percentile bootstrap (Efron & Tibshirani 1993, section 13.3) draws n of the n rows with repetition, many times, and
takes quantiles of the statistic over these draws.
"""

import math
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from guided_diffusion.evaluation.results import Interval
from guided_diffusion.utils.rng import generator_for

RESAMPLES = 200


def bootstrap(
    statistic: Callable[[Int[Tensor, " n"]], float],
    count: int,
    seed: int,
    resamples: int = RESAMPLES,
    level: float = 0.95,
    centred: bool = False,
) -> Interval:
    """Return the statistic of rows 0 to ``count - 1`` with its interval.

    Args:
        statistic: A function of row numbers, some of which occur more than once.
        count: The number of rows, at least 1.
        level: The share of the resampled values within the interval.
        centred: Whether the interval is moved so that the mean of the resampled values lies at the value, for a
            statistic that repeated rows bias.
    """
    value = statistic(torch.arange(count))
    resampled = torch.tensor([statistic(rows) for rows in resampled_rows(count, seed, resamples)], dtype=torch.float64)
    return percentile_interval(value, resampled, level, centred)


def bootstrap_mean(values: Float[Tensor, " n"], seed: int, resamples: int = RESAMPLES, level: float = 0.95) -> Interval:
    """Return the same as ``bootstrap`` for the mean, computed for all draws at once."""
    values = values.double()
    resampled = values[resampled_rows(len(values), seed, resamples)].mean(1)
    return percentile_interval(values.mean().item(), resampled, level)


def resampled_rows(count: int, seed: int, resamples: int = RESAMPLES) -> Int[Tensor, "resamples count"]:
    """Return row numbers drawn with repetition; they depend on the arguments alone."""
    return torch.randint(count, (resamples, count), generator=generator_for("cpu", seed))


def row_counts(numbers: Int[Tensor, "r n"], limit: int) -> Int[Tensor, "r {limit}"]:
    """Return how often each number below ``limit`` occurs in each row."""
    shifted = numbers + limit * torch.arange(len(numbers))[:, None]
    return shifted.flatten().bincount(minlength=limit * len(numbers)).view(-1, limit)


def percentile_interval(
    value: float, resampled: Float[Tensor, " resamples"], level: float = 0.95, centred: bool = False
) -> Interval:
    """Return the value with quantiles of the resampled values, leaving out nan; ``centred`` as in ``bootstrap``.

    The quantile q of B values is the one in place ``(B + 1) q``, so that the interval holds its level for small B too
    (Efron & Tibshirani 1993, section 12.5).
    """
    known, tail = resampled.double()[~resampled.isnan()], (1 - level) / 2
    if not len(known):
        return Interval(value, math.nan, math.nan)
    low, high = np.quantile(known.numpy(), [tail, 1 - tail], method="weibull").tolist()
    offset = value - known.mean().item() if centred else 0.0
    return Interval(value, low + offset, high + offset)
