"""The dataset of a folder of the user's own images, with a folder for each class."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from guided_diffusion.data.base import Batch, Split
from guided_diffusion.data.class_folders import ImageFile, find_class_folders, list_images, shared_folders
from guided_diffusion.data.decoding import MODES, Decoded, decode
from guided_diffusion.data.own_images import OwnImages
from guided_diffusion.utils.distributed import rank_zero_print
from guided_diffusion.utils.listing import data_hash, first_few
from guided_diffusion.utils.validation import height_and_width


class ImageFolder(OwnImages):
    """Images in a folder for each class, cropped to the middle and resized; the classes are the names of the folders.

    Files may have any size and any common format and mode. They are decoded once, into a file of the cache. If ``root``
    holds ``train`` and no other folders than ``val`` and ``test``, these are the splits, with the class folders inside;
    a split without a folder is drawn at random from ``train``. ``class_folders.SPLITS`` has more names for them. Other
    arguments are those of ``OwnImages``.

    Args:
        root: The folder.
        image_size: The side of the images, or their height and width.
        channels: The channels of the images: 1 for grey, 3 for colour.
        skip_broken: Whether to leave out files that can't be read, instead of refusing them.
        content: The ``data_hash`` of the folder when the model was trained, ``None`` if it does not matter.

    Raises:
        FileNotFoundError: If there is no such folder.
        ValueError: If the folder has another layout, an argument is out of range or, from ``setup``, a file is broken.
    """

    def __init__(
        self,
        root: str | Path | None,
        image_size: int | Sequence[int],
        channels: int,
        batch_size: int,
        validation_fraction: float,
        test_fraction: float,
        skip_broken: bool = False,
        content: str | None = None,
        flip: bool = False,
        seed: int = 0,
        split_seed: int = 0,
        balance: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, validation_fraction, test_fraction, flip, seed, split_seed, balance, num_workers)
        if root is None:
            raise ValueError("root is missing: add data.root=PATH, a folder with a folder of images for each class")
        if channels not in MODES:
            raise ValueError(f"channels must be 1, for grey, or 3, for colour, got {channels}")
        self.size = height_and_width(image_size)
        self.root, self.image_size, self.channels = Path(root), image_size, channels
        self.skip_broken, self.content = skip_broken, content
        self.folders = find_class_folders(self.root)
        self.class_names = tuple(folder.name for folder in self.folders["train"])
        self.name = self.root.resolve().name

    def prepare_data(self) -> None:
        _ = self._decoded

    def load(self, train: bool) -> Batch:
        rows = self._rows["test"]
        if train:
            rows = torch.cat([self._rows["train"], self._rows["val"]])
            self._describe()
        return Batch(self._decoded.images[rows], self._labels[rows])

    def validation_rows(self, labels: Int[Tensor, " n"]) -> Int[Tensor, " v"]:
        if "val" in self.folders:
            return torch.arange(len(self._rows["train"]), len(labels))  # ``load`` appends them to the others
        return super().validation_rows(labels)

    @cached_property
    def _files(self) -> list[ImageFile]:
        return list_images(self.folders)

    @cached_property
    def _labels(self) -> Int[Tensor, " n"]:
        return torch.tensor([self.class_names.index(file.class_name) for file in self._files])

    @cached_property
    def _decoded(self) -> Decoded:
        if self.content is not None and data_hash(self.root) != self.content:
            rank_zero_print(
                f"the images in {self.root} are not the ones of the training: some were added, removed or changed"
            )
        return decode(self.root, [file.path for file in self._files], self.channels, self.size, self.num_workers)

    @cached_property
    def _rows(self) -> dict[Split, Int[Tensor, " k"]]:
        """The rows of the files of each split. Those of ``val`` are empty if they have no folder."""
        broken = self._decoded.broken
        if broken and (not self.skip_broken or len(broken) == len(self._files)):
            reasons = [f"{self._files[row].path.relative_to(self.root)} ({why})" for row, why in broken.items()]
            raise ValueError(
                f"{len(broken):,} of {len(self._files):,} images in {self.root} can't be read: {first_few(reasons)}; "
                f"repair or remove them, or leave them out with data.skip_broken=true"
            )
        found: dict[Split, list[int]] = {"train": [], "val": [], "test": []}
        for row, file in enumerate(self._files):
            if row not in broken:
                found[file.split].append(row)
        rows = {split: torch.tensor(numbers, dtype=torch.int64) for split, numbers in found.items()}
        if "test" not in self.folders:
            is_test = torch.zeros(len(rows["train"]), dtype=torch.bool)
            is_test[self.test_rows(self._labels[rows["train"]])] = True
            rows |= {"train": rows["train"][~is_test], "test": rows["train"][is_test]}
        return rows

    def _describe(self) -> None:
        """Print the number of images of each class, their sizes and modes, and the number in each split."""
        counts = self._labels.bincount(minlength=self.num_classes).tolist()
        classes = [f"{name} {count:,}" for name, count in zip(self.class_names, counts, strict=True)]
        num_test, (height, width) = len(self._rows["test"]), self.size
        num_training = len(self._files) - len(self._decoded.broken) - num_test
        for line in (
            f"{self.name}: {len(self._files):,} images of {self.num_classes} classes: {first_few(classes, 20)}",
            f"  {self._decoded.describe()}; resized to {height}x{width} (height x width) {MODES[self.channels]}",
            f"  {num_training:,} for training and validation, {num_test:,} for testing",
        ):
            rank_zero_print(line)
        if self._decoded.is_almost_black():
            rank_zero_print("  the 16-bit files are almost black; if they hold 12 bits, multiply their pixels by 16")
        if shared := shared_folders(self.folders["train"]):
            rank_zero_print(
                f"  all class folders hold the same folders, {first_few(shared)}: if these are the classes, rename "
                f"the folders above them to train, val and test"
            )
