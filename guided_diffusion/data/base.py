"""The base classes of the datasets, their batches and loaders; ``kind_of`` tells images from points by the shape."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from guided_diffusion.utils.rng import generator_for
from guided_diffusion.utils.validation import check_positive, height_and_width

Split = Literal["train", "val", "test"]


def kind_of(shape: Sequence[int]) -> str:
    """Return ``images`` for samples of shape (channels, height, width) and ``points`` for (coordinates,)."""
    return {3: "images", 1: "points"}[len(shape)]


def network_sizes(shape: Sequence[int]) -> dict[str, int | list[int]]:
    """Return the arguments that give a network the shape of its samples.

    ``image_size`` is one number if images are square, else height and width.
    """
    if kind_of(shape) == "points":
        return {"dimensions": shape[0]}
    channels, height, width = shape
    return {"channels": channels, "image_size": height if height == width else [height, width]}


class Batch(NamedTuple):
    """Samples and their labels. Images are uint8 in the loader; on the device all samples are float in [-1, 1]."""

    samples: Tensor
    labels: Int[Tensor, " b"]


def normalise(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map pixels in [0, 255] to [-1, 1], the range of every model's input."""
    return images.float() / 127.5 - 1


def denormalise(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Clamp pixels to [-1, 1] and map them back to [0, 255]."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


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


@dataclass(eq=False)
class ImageDataset(Rows):
    """Images in memory as uint8, with their labels.

    With ``flip``, each is mirrored from left to right with probability 1/2, drawn from ``seed`` and the indices.
    """

    samples: UInt8[Tensor, "n c h w"]
    flip: bool = False
    seed: int = 0

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        images, labels = super().__getitems__(indices)
        if self.flip:
            mirrored = torch.rand(len(labels), generator=generator_for("cpu", self.seed, *indices)) < 0.5
            images[mirrored] = images[mirrored].flip(-1)
        return Batch(images, labels)


class ResumableLoader(DataLoader[Batch]):
    """A loader that can start in the middle of an epoch; Lightning saves its state in checkpoints."""

    _start = _done = 0

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        self._done, self._start = self._start, 0
        for batch in islice(super().__iter__(), self._done, None):
            self._done += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        return {"batches": self._done % len(self)}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self._start = state["batches"]


class LabelledDataModule(LightningDataModule, ABC):
    """A dataset of labelled samples: split, batched, and in [-1, 1] on the device.

    A subclass sets ``name``, ``class_names`` and ``shape``, and implements ``load`` and ``dataset``. The test split
    is only for measuring a judge and the distance of samples to data.

    Args:
        batch_size: The number of samples per step and device.
        validation_size: The number of training samples that are held out for validation.
        seed: The seed of the order of the samples, and of random changes to them.
        split_seed: The seed of the choice of the held-out samples.

    Raises:
        ValueError: If a size is too small; from ``setup``, if less than one batch is left for training.
    """

    name: str
    class_names: tuple[str, ...]

    def __init__(self, batch_size: int, validation_size: int, seed: int = 0, split_seed: int = 0) -> None:
        super().__init__()
        check_positive(batch_size=batch_size)
        if validation_size < 0:
            raise ValueError(f"validation_size must be at least 0, got {validation_size}")
        self.batch_size = batch_size
        self.validation_size = validation_size
        self.seed = seed
        self.split_seed = split_seed
        self._splits: dict[Split, Batch] = {}

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """The shape of one sample."""

    @abstractmethod
    def load(self, train: bool) -> Batch:
        """Read all samples for training (validation included), or all for testing, with their labels."""

    @abstractmethod
    def dataset(self, split: Split) -> Rows:
        """Return a split in the form that the loader takes."""

    @property
    def kind(self) -> str:
        """``images`` or ``points``, which decides how samples are measured and plotted."""
        return kind_of(self.shape)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def split(self, name: Split) -> Batch:
        """Return a whole split as it was loaded; it is read on first use."""
        if name not in self._splits:
            if name == "test":
                self._splits["test"] = self.load(train=False)
            else:
                self._splits |= self._split_training(self.load(train=True))
        return self._splits[name]

    def class_counts(self, split: Split) -> Int[Tensor, " classes"]:
        """Return the number of samples of each class in a split."""
        return torch.bincount(self.split(split).labels, minlength=self.num_classes)

    def _split_training(self, data: Batch) -> dict[Split, Batch]:
        order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(self.split_seed))
        remaining = len(order) - self.validation_size
        if remaining < self.batch_size:
            raise ValueError(
                f"{self.name} has {len(order)} training {self.kind}: with validation_size {self.validation_size} "
                f"that is less than one batch of {self.batch_size}; lower data.batch_size or data.validation_size"
            )
        train, val = (part.sort().values for part in (order[:remaining], order[remaining:]))
        return {"train": Batch(*(part[train] for part in data)), "val": Batch(*(part[val] for part in data))}

    def setup(self, stage: str | None = None) -> None:
        self.split("test" if stage == "test" else "train")

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test", shuffle=False)

    def _loader(self, split: Split, shuffle: bool) -> DataLoader[Batch]:
        """Return a loader whose order depends on (seed, epoch). It needs no workers: they would only copy batches."""
        dataset = self.dataset(split)
        replicas, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler: DistributedSampler[Batch] = DistributedSampler(
            dataset, replicas, rank, shuffle=shuffle, seed=self.seed, drop_last=shuffle
        )
        return ResumableLoader(
            dataset, self.batch_size, sampler=sampler, drop_last=shuffle, collate_fn=lambda batch: batch
        )


class ImageDataModule(LabelledDataModule):
    """A dataset of labelled images.

    A subclass sets ``name``, ``channels``, ``image_size`` (the side of square images, or height and width) and
    ``class_names``, and implements ``load``, which returns uint8 images of shape (n, c, h, w). Other arguments and
    errors are those of ``LabelledDataModule``.

    Args:
        flip: Whether to mirror images at random in training; not suitable for digits, as a mirrored digit is no digit.
    """

    channels: int
    image_size: int | Sequence[int]

    def __init__(
        self, batch_size: int, validation_size: int, flip: bool = False, seed: int = 0, split_seed: int = 0
    ) -> None:
        super().__init__(batch_size, validation_size, seed, split_seed)
        self.flip = flip

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, *height_and_width(self.image_size))

    def dataset(self, split: Split) -> ImageDataset:
        return ImageDataset(*self.split(split), flip=self.flip and split == "train", seed=self.seed)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return Batch(normalise(batch.samples), batch.labels)
