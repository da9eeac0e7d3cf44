"""The labels of an evaluation: how many samples of each class, and in which order."""

import torch
from jaxtyping import Int
from torch import Tensor

PROPORTIONAL, EQUAL = "proportional", "equal"
LABELS = (PROPORTIONAL, EQUAL)
"""The ways to draw labels: in the proportions of the test split, or every class equally often."""


def apportion(total: int, sizes: Int[Tensor, " classes"]) -> Int[Tensor, " classes"]:
    """Divide ``total`` in proportion to ``sizes``, whose sum is positive, by largest remainders.

    Each class gets ``total * size / sum(sizes)``, rounded down; what is left goes to the largest remainders, one each,
    and to the first class of several with the same remainder.

    References:
        Balinski & Young 1982, Fair Representation, "the method of Hamilton"
    """
    counts, remainders = total * sizes // sizes.sum(), total * sizes % sizes.sum()
    left = total - int(counts.sum())
    counts[remainders.argsort(descending=True, stable=True)[:left]] += 1
    return counts


def interleave(counts: Int[Tensor, " classes"]) -> Int[Tensor, " n"]:
    """Return labels with these counts, mixed so that the first few have nearly the same proportions as all.

    Equal counts give 0, 1, 2, ..., 0, 1, 2, ...
    """
    labels = torch.arange(len(counts)).repeat_interleave(counts)
    positions = (occurrences(labels) + 0.5) / counts[labels]
    return labels[positions.argsort(stable=True)]


def occurrences(labels: Int[Tensor, " n"]) -> Int[Tensor, " n"]:
    """Return, for each label, how many earlier ones are the same."""
    before = torch.zeros_like(labels)
    for label in labels.unique():
        same = labels == label
        before[same] = torch.arange(int(same.sum()))
    return before
