"""What every labelled dataset shares, and one DataModule for images, whatever the dataset."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int, Shaped, UInt8
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torch.utils.data.distributed import DistributedSampler

from guided_diffusion.utils.rng import generator_for
from guided_diffusion.utils.validation import check_positive

Split = Literal["train", "val", "test"]

KINDS = {3: "images", 1: "points"}
"""What samples are, by the number of axes of one of them: channels, height and width, or coordinates."""


def kind_of(shape: Sequence[int]) -> str:
    """``images`` or ``points``: what has samples of this shape."""
    return KINDS[len(shape)]


class Batch(NamedTuple):
    """Samples and their classes; images are uint8 from the loader, all are float in [-1, 1] once on the device."""

    samples: Tensor
    labels: Int[Tensor, " b"]


def normalise(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """0 to 255 becomes -1 to 1, the range of every model's input."""
    return images.float() / 127.5 - 1


def denormalise(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """-1 to 1 becomes 0 to 255; what lies outside is clamped."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


class Rows(Dataset[Batch]):
    """Samples held once, whatever their shape; a batch is one indexing operation."""

    def __init__(self, samples: Shaped[Tensor, "n *shape"], labels: Int[Tensor, " n"]) -> None:
        self.samples = samples
        self.labels = labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        rows = torch.as_tensor(indices)
        return Batch(self.samples[rows], self.labels[rows])


class ImageDataset(Rows):
    """Images held once as uint8; a batch is one indexing operation.

    Args:
        images: shape (n, c, h, w).
        labels: shape (n,).
        flip: mirror each image from left to right with probability 1/2, decided by ``seed`` and the batch's indices.
        seed: of the flips.
    """

    def __init__(
        self, images: UInt8[Tensor, "n c h w"], labels: Int[Tensor, " n"], flip: bool = False, seed: int = 0
    ) -> None:
        super().__init__(images, labels)
        self.flip = flip
        self.seed = seed

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        images, labels = super().__getitems__(indices)
        if self.flip:
            mirrored = torch.rand(len(labels), generator=generator_for("cpu", self.seed, *indices)) < 0.5
            images[mirrored] = images[mirrored].flip(-1)
        return Batch(images, labels)


class ResumableLoader(DataLoader[Batch]):
    """A loader that can begin in the middle of an epoch: Lightning keeps its state in the checkpoints."""

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
    """Samples and labels for every training and judgement: split, batched, in [-1, 1] on the device.

    A subclass states ``name``, ``class_names`` and ``shape``, and implements ``load`` and ``dataset``. The test
    split is for ceilings and distances, nothing else.

    Args:
        batch_size: samples per step and device.
        validation_size: how many training samples are held out.
        seed: of the order.
        split_seed: of the choice of the held-out samples.

    Raises:
        ValueError: from ``setup``, if a split would be empty.
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
        """Of one sample."""

    @abstractmethod
    def load(self, train: bool) -> Batch:
        """All samples for training, or all for testing, with their labels."""

    @abstractmethod
    def dataset(self, split: Split) -> Rows:
        """A split as the loader takes it."""

    @property
    def kind(self) -> str:
        """``images`` or ``points``: what measures, pictures and callbacks are chosen by."""
        return kind_of(self.shape)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def split(self, name: Split) -> Batch:
        """A whole split, as it was loaded; read and divided on first use."""
        if name not in self._splits:
            if name == "test":
                self._splits["test"] = self.load(train=False)
            else:
                self._splits |= self._divided(self.load(train=True))
        return self._splits[name]

    def _divided(self, data: Batch) -> dict[Split, Batch]:
        order = torch.randperm(len(data.labels), generator=torch.Generator().manual_seed(self.split_seed))
        remaining = len(order) - self.validation_size
        if remaining < self.batch_size:
            raise ValueError(
                f"{self.name} has {len(order)} training {self.kind}: with validation_size {self.validation_size} "
                f"that is less than one batch of {self.batch_size}; lower data.batch_size or data.validation_size"
            )
        train, val = order[:remaining].sort().values, order[remaining:].sort().values
        return {
            "train": Batch(data.samples[train], data.labels[train]),
            "val": Batch(data.samples[val], data.labels[val]),
        }

    def setup(self, stage: str | None = None) -> None:
        self.split("test" if stage == "test" else "train")

    def train_dataloader(self) -> DataLoader[Batch]:
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val", shuffle=False)

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test", shuffle=False)

    def _loader(self, split: Split, shuffle: bool) -> DataLoader[Batch]:
        """Workers would only copy: a batch is one indexing operation. The order follows from (seed, epoch)."""
        dataset = self.dataset(split)
        replicas, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler: DistributedSampler[Batch] = DistributedSampler(
            dataset, replicas, rank, shuffle=shuffle, seed=self.seed, drop_last=shuffle
        )
        return ResumableLoader(dataset, self.batch_size, sampler=sampler, drop_last=shuffle, collate_fn=_as_it_is)


class ImageDataModule(LabelledDataModule):
    """Images and labels. A dataset is a subclass that states ``name``, ``channels``, ``image_size``, ``class_names``.

    It implements ``load``: uint8 of shape (n, c, h, w), and labels.

    Args:
        batch_size: images per step and device.
        validation_size: how many training images are held out.
        flip: mirror images in training. It belongs to the dataset: a mirrored digit is none.
        seed: of the order and the flips.
        split_seed: of the choice of the held-out images.

    Raises:
        ValueError: from ``setup``, if a split would be empty.
    """

    channels: int
    image_size: int

    def __init__(
        self, batch_size: int, validation_size: int, flip: bool = False, seed: int = 0, split_seed: int = 0
    ) -> None:
        super().__init__(batch_size, validation_size, seed, split_seed)
        self.flip = flip

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: channels, height, width."""
        return self.channels, self.image_size, self.image_size

    def dataset(self, split: Split) -> ImageDataset:
        return ImageDataset(*self.split(split), flip=self.flip and split == "train", seed=self.seed)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return Batch(normalise(batch.samples), batch.labels)


def _as_it_is(batch: Any) -> Any:
    return batch
