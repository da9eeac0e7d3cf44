"""The base classes of the datasets, their batches and loaders; ``kind_of`` tells images from points by the shape."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int, UInt8
from pytorch_lightning import LightningDataModule
from torch import Tensor
from torch.utils.data import DataLoader

from guided_diffusion.data.batches import Batch, ImageDataset, ResumableLoader, Rows, identity, start_worker
from guided_diffusion.data.checks import check_samples
from guided_diffusion.data.order import BalancedSampler, EpochSampler
from guided_diffusion.utils.distributed import rank_zero_print
from guided_diffusion.utils.listing import first_few
from guided_diffusion.utils.validation import check_not_negative, check_positive, height_and_width

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


def normalise(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Map pixels in [0, 255] to [-1, 1], the range of every model's input."""
    return images.float() / 127.5 - 1


def denormalise(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Clamp pixels to [-1, 1] and map them back to [0, 255]."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


class LabelledDataModule(LightningDataModule, ABC):
    """A dataset of labelled samples: split, batched, and in [-1, 1] on the device.

    A subclass sets ``name``, ``class_names`` and ``shape``, and implements ``load`` and ``dataset``. The test split
    is only for measuring a judge and the distance of samples to data.

    Args:
        batch_size: The number of samples per step and device.
        validation_size: The number of training samples that are held out for validation.
        seed: The seed of the order of the samples, and of random changes to them.
        split_seed: The seed of the choice of the held-out samples.
        balance: Whether training draws each class equally often, instead of each sample.
        num_workers: The number of worker processes that make the batches, 0 for none. It does not change the batches.

    Raises:
        ValueError: If a size or a seed is too small; from ``setup`` and ``split``, if the data is not what the subclass
            declares or less than one batch is left for training.
    """

    name: str
    class_names: tuple[str, ...]
    root_holds_datasets = True
    """Whether an argument ``root`` is the folder of all datasets, which ``GUIDED_DIFFUSION_DATA`` names."""
    held_out_by = "validation_size"
    """The name of the argument that sets how many samples are held out for validation, for error messages."""

    def __init__(
        self,
        batch_size: int,
        validation_size: int,
        seed: int = 0,
        split_seed: int = 0,
        balance: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        check_positive(batch_size=batch_size)
        check_not_negative(validation_size=validation_size, num_workers=num_workers, seed=seed, split_seed=split_seed)
        self.batch_size = batch_size
        self.validation_size = validation_size
        self.seed = seed
        self.split_seed = split_seed
        self.balance = balance
        self.num_workers = num_workers
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
        """Return a whole split as it was loaded. It is read and checked on first use."""
        if name not in self._splits:
            if name == "test":
                self._splits["test"] = self._load("test")
            else:
                self._splits |= self._split_training(self._load("train"))
                self._print_missing_classes()
        return self._splits[name]

    def class_counts(self, split: Split) -> Int[Tensor, " classes"]:
        """Return the number of samples of each class in a split."""
        return torch.bincount(self.split(split).labels, minlength=self.num_classes)

    def validation_rows(self, labels: Int[Tensor, " n"]) -> Int[Tensor, " v"]:
        """Return the rows that are held out for validation, given the labels of all samples for training."""
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(self.split_seed))
        return order[max(0, len(order) - self.validation_size) :]

    def _load(self, split: Split) -> Batch:
        samples, labels = map(torch.as_tensor, self.load(train=split != "test"))
        try:
            check_samples(f"{self.name}, {split} split", samples, labels, self.shape, self.num_classes)
        except ValueError as error:
            if split != "test" or len(samples):
                raise
            raise ValueError(f"{error}; with callbacks=minimal a training needs no test split") from error
        return Batch(samples, labels.long())

    def _split_training(self, data: Batch) -> dict[Split, Batch]:
        is_held_out = torch.zeros(len(data.labels), dtype=torch.bool)
        is_held_out[self.validation_rows(data.labels)] = True
        remaining = int((~is_held_out).sum())
        if remaining < self.batch_size:
            raise ValueError(
                f"{self.name} has {len(is_held_out)} training {self.kind}: without the {len(is_held_out) - remaining} "
                f"for validation that is less than one batch of {self.batch_size}; lower data.batch_size or "
                f"data.{self.held_out_by}"
            )
        return {
            "train": Batch(data.samples[~is_held_out], data.labels[~is_held_out]),
            "val": Batch(data.samples[is_held_out], data.labels[is_held_out]),
        }

    def _print_missing_classes(self) -> None:
        missing = [self.class_names[label] for label in (self.class_counts("train") == 0).nonzero().flatten()]
        if missing:
            rank_zero_print(
                f"{self.name} has no training {self.kind} of {first_few(missing)}: the model can't learn such a class"
            )

    def setup(self, stage: str | None = None) -> None:
        self.split("test" if stage == "test" else "train")

    def train_dataloader(self) -> DataLoader[Batch]:
        loader = self._loader("train", is_training=True)
        if not len(loader):
            raise ValueError(
                f"{self.name} has {len(self.split('train').labels)} training {self.kind} without those for validation: "
                f"on several devices that is less than one batch of {self.batch_size} on each; lower data.batch_size"
            )
        return loader

    def val_dataloader(self) -> DataLoader[Batch]:
        return self._loader("val")

    def test_dataloader(self) -> DataLoader[Batch]:
        return self._loader("test")

    def _loader(self, split: Split, is_training: bool = False) -> DataLoader[Batch]:
        """Return a loader. Its order depends on (seed, epoch) in training; otherwise it is that of the split."""
        dataset = self.dataset(split)
        replicas, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = (
            BalancedSampler(dataset, replicas, rank, self.seed, self.split(split).labels)
            if is_training and self.balance
            else EpochSampler(dataset, replicas, rank, shuffle=is_training, seed=self.seed, drop_last=is_training)
        )
        return ResumableLoader(
            dataset,
            self.batch_size,
            sampler=sampler,
            drop_last=is_training,
            collate_fn=identity,
            num_workers=self.num_workers,
            worker_init_fn=start_worker,
        )


class ImageDataModule(LabelledDataModule):
    """A dataset of labelled images.

    A subclass sets ``name``, ``channels``, ``image_size`` (the side of square images, or height and width) and
    ``class_names``, and implements ``load``, which returns uint8 images of shape (n, c, h, w). Other arguments and
    errors are those of ``LabelledDataModule``.

    Args:
        flip: Whether to mirror images at random in training; not for images that face one way, as digits and shoes do.
    """

    channels: int
    image_size: int | Sequence[int]

    def __init__(
        self,
        batch_size: int,
        validation_size: int,
        flip: bool = False,
        seed: int = 0,
        split_seed: int = 0,
        balance: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, validation_size, seed, split_seed, balance, num_workers)
        self.flip = flip

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self.channels, *height_and_width(self.image_size))

    def dataset(self, split: Split) -> ImageDataset:
        return ImageDataset(*self.split(split), flip=self.flip and split == "train", seed=self.seed)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> Batch:
        return Batch(normalise(batch.samples), batch.labels)
