"""Samplers, which decide the order of an epoch from (seed, epoch): all samples once, or every class equally often."""

from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset
from torch.utils.data.distributed import DistributedSampler

from guided_diffusion.utils.rng import generator_for

BALANCE = 2
"""The last part of the random key (seed, epoch, BALANCE); other random choices of an epoch use another number."""


class EpochSampler(DistributedSampler[Any]):
    """A ``DistributedSampler`` that also tells the dataset the epoch, which Lightning sets before each epoch."""

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.dataset.set_epoch(epoch)  # type: ignore[attr-defined]


class BalancedSampler(EpochSampler):
    """A sampler that draws each class equally often, in epochs as long as the dataset.

    The samples of a rare class are repeated, and each epoch has other samples of a frequent class; within a class the
    numbers of repetitions differ by one at most. The order depends only on the seed and the epoch.

    Args:
        labels: The label of each sample of the dataset.
    """

    def __init__(
        self, dataset: Dataset[Any], num_replicas: int, rank: int, seed: int, labels: Int[Tensor, " n"]
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=True, seed=seed, drop_last=True)
        self._rows_by_class = [(labels == label).nonzero().flatten() for label in labels.unique()]

    def __iter__(self) -> Iterator[int]:
        generator = generator_for("cpu", self.seed, self.epoch, BALANCE)
        classes = torch.randperm(
            len(self._rows_by_class), generator=generator
        ).tolist()  # the first have one sample more
        drawn = []
        for place, label in enumerate(classes):
            count = (self.total_size - place - 1) // len(classes) + 1
            drawn.append(_draw(self._rows_by_class[label], count, generator))
        order = torch.cat(drawn)[torch.randperm(self.total_size, generator=generator)]
        return iter(order[self.rank :: self.num_replicas].tolist())


def _draw(rows: Int[Tensor, " n"], count: int, generator: torch.Generator) -> Int[Tensor, "{count}"]:
    """Return ``count`` rows in random order, none of them more than once more often than another."""
    rounds = [rows[torch.randperm(len(rows), generator=generator)] for _ in range(count // len(rows) + 1)]
    return torch.cat(rounds)[:count]
