"""Batches, the datasets in memory that make them, and the loader that can start in the middle of an epoch."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import torch
from jaxtyping import Int, Shaped, UInt8
from lightning_fabric.utilities.seed import pl_worker_init_function
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from guided_diffusion.utils.rng import generator_for
from guided_diffusion.utils.signals import leave_signals_to_parent, stop_signals_blocked

FLIPS = 1
"""The last part of the random key (seed, epoch, FLIPS); other random choices of an epoch use another number."""


class Batch(NamedTuple):
    """Samples and their labels. Images are uint8 in the loader; on the device all samples are float in [-1, 1]."""

    samples: Tensor
    labels: Int[Tensor, " b"]


@dataclass(eq=False)
class Rows(Dataset[Batch]):
    """Samples of any shape in memory, with their labels; a batch is one indexing operation."""

    samples: Shaped[Tensor, "n *shape"]
    labels: Int[Tensor, " n"]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = torch.as_tensor(indices)
        return Batch(self.samples[rows], self.labels[rows])

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: no epoch differs from another. The sampler calls this before each epoch."""


@dataclass(eq=False)
class ImageDataset(Rows):
    """Images in memory as uint8, with their labels.

    With ``flip``, each is mirrored from left to right with probability 1/2. The choice depends on the seed, the epoch
    and the index of the image, not on its batch.
    """

    samples: UInt8[Tensor, "n c h w"]
    flip: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Draw which images are mirrored in this epoch."""
        if self.flip:
            generator = generator_for("cpu", self.seed, epoch, FLIPS)
            self._mirrored = torch.rand(len(self), generator=generator) < 0.5

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        images, labels = super().__getitems__(indices)
        if self.flip:
            mirrored = self._mirrored[torch.as_tensor(indices)]
            images[mirrored] = images[mirrored].flip(-1)
        return Batch(images, labels)


class ResumableLoader(DataLoader[Batch]):
    """A loader that can start in the middle of an epoch; Lightning saves its state in checkpoints."""

    _start = _done = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._done, self._start = self._start, 0
        with stop_signals_blocked():  # from before the first moment of the workers
            batches = super().__iter__()
        for batch in islice(batches, self._done, None):
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"batches": self._done % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._start = state["batches"]


def identity(batch: Any) -> Any:
    """Return the batch as the dataset made it; unlike a lambda, this can be sent to worker processes."""
    return batch


def start_worker(number: int) -> None:
    """Prepare a worker process of a loader: only its parent may end it, and Lightning seeds its random numbers."""
    leave_signals_to_parent()
    pl_worker_init_function(number)
