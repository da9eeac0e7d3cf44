"""``LabelledSamples``: the samples that an evaluation draws and measures."""

from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor


class LabelledSamples(NamedTuple):
    """Generated samples of one guidance scale, on the CPU."""

    samples: Float[Tensor, "n *shape"]
    """The samples, in [-1, 1]."""
    labels: Int[Tensor, " n"]
    """The class that was asked for in each sample."""
    saturation: Float[Tensor, " n"]
    """The share of each sample's numbers with |x| > 1 before they were clamped."""
