"""Wilson intervals of shares, such as accuracies; unlike bootstrap intervals, they have a width even at 0 and 1."""

import math
from statistics import NormalDist

from jaxtyping import Float, Shaped
from torch import Tensor

from guided_diffusion.evaluation.results import Interval


def wilson(share: float, count: float, level: float = 0.95) -> Interval:
    """Return a share of successes among ``count`` trials with its Wilson interval; nan without a trial.

    With p the share, n the count and z the quantile of the normal distribution at (1 + level) / 2, the ends are

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n)

    References:
        Wilson 1927, JASA 22, p. 209
    """
    if not count or math.isnan(share):
        return Interval(math.nan, math.nan, math.nan)
    z = NormalDist().inv_cdf((1 + level) / 2)
    centre, shrink = share + z**2 / (2 * count), 1 + z**2 / count
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return Interval(share, min(share, (centre - half) / shrink), max(share, (centre + half) / shrink))


def share_interval(successes: Shaped[Tensor, " n"], weights: Float[Tensor, " n"] | None = None) -> Interval:
    """Return the share of successes, which are 0 or 1, with its 95 % Wilson interval.

    With weights w the share is a weighted mean, and the number of trials is the effective one, (sum w)^2 / sum w^2
    (Kish 1965, Survey Sampling, section 11.7).
    """
    values = successes.double()
    if weights is None:
        return wilson(values.mean().item(), len(values))
    weights = weights.double()
    total = weights.sum()
    share, count = (values * weights).sum() / total, total.square() / weights.square().sum()
    return wilson(share.clamp(0, 1).item(), count.item())
