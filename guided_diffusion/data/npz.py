"""The dataset of a NumPy archive with the user's own images."""

import zipfile
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from guided_diffusion.data.base import Batch
from guided_diffusion.data.checks import check_samples
from guided_diffusion.data.own_images import OwnImages
from guided_diffusion.utils.distributed import rank_zero_print
from guided_diffusion.utils.listing import data_hash, first_few

CHANNELS = (1, 2, 3, 4)
"""The lengths by which the axis of the channels is recognized."""


class NpzImages(OwnImages):
    """The images in an ``.npz`` file with the arrays ``images`` and ``labels``.

    ``images`` is uint8 of shape (n, h, w), (n, h, w, c) or (n, c, h, w); ``labels`` holds whole numbers from 0. If
    there are ``test_images`` and ``test_labels``, these are the test split. ``class_names`` may name the classes.
    Other arguments are those of ``OwnImages``.

    Args:
        path: The file.
        content: The ``data_hash`` of the file when the model was trained, ``None`` if it does not matter.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file has other arrays or names of classes or, from ``setup``, other values in them.
    """

    def __init__(
        self,
        path: str | Path | None,
        batch_size: int,
        validation_fraction: float,
        test_fraction: float,
        content: str | None = None,
        flip: bool = False,
        seed: int = 0,
        split_seed: int = 0,
        balance: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, validation_fraction, test_fraction, flip, seed, split_seed, balance, num_workers)
        if path is None:
            raise ValueError("path is missing: add data.path=FILE, an .npz file with images and labels")
        self.path = Path(path)
        arrays = _read(self.path)
        self._parts = {"train": _part(self.path, arrays, "images", "labels")}
        if "test_images" in arrays or "test_labels" in arrays:
            self._parts["test"] = _part(self.path, arrays, "test_images", "test_labels")
        labels = torch.cat([part.labels.flatten() for part in self._parts.values()])
        numbers = np.arange(len(labels.unique()))
        self.class_names = _names(self.path, arrays.get("class_names", numbers))
        self.channels, *sides = self._parts["train"].samples.shape[1:]
        self.image_size = sides
        self.name = self.path.stem
        if content is not None and data_hash(self.path) != content:
            rank_zero_print(f"{self.path} is not the file of the training: its content has changed")

    def load(self, train: bool) -> Batch:
        if "test" in self._parts:
            return self._parts["train" if train else "test"]
        samples, labels = self._parts["train"]
        check_samples(self.name, samples, labels, self.shape, self.num_classes)  # before they are drawn by their labels
        is_test = torch.zeros(len(labels), dtype=torch.bool)
        is_test[self.test_rows(labels)] = True
        rows = ~is_test if train else is_test
        return Batch(samples[rows], labels[rows])


def _read(path: Path) -> dict[str, np.ndarray]:
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no file {path.absolute()}: name an .npz file with data.path, or in evaluate with data_path"
        )
    try:
        with np.load(path) as archive:
            return {name: archive[name] for name in archive.files}
    except (ValueError, OSError, EOFError, AttributeError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(
            f"{path} can't be read ({error}): write an .npz file of numbers and text, with numpy.savez"
        ) from error


def _part(path: Path, arrays: dict[str, np.ndarray], images: str, labels: str) -> Batch:
    missing = [name for name in (images, labels) if name not in arrays]
    if missing:
        raise ValueError(
            f"{path} has no array {missing[0]}, only {', '.join(arrays) or 'nothing'}: add it with numpy.savez"
        )
    try:
        samples, targets = (torch.from_numpy(_native(arrays[name])) for name in (images, labels))
    except TypeError as error:
        raise ValueError(f"{path}: images and labels must be numbers: {error}") from error
    if targets.is_complex():
        raise ValueError(f"{path}: {labels} are {arrays[labels].dtype}, but must be whole numbers")
    return Batch(_channels_first(samples, f"{path}: {images}"), targets)


def _names(path: Path, names: np.ndarray) -> tuple[str, ...]:
    """Return the names of the classes as texts; bytes are taken as UTF-8."""
    if names.ndim != 1:
        raise ValueError(f"{path}: class_names has the shape {names.shape}, but must be a list with a name per class")
    try:
        texts = [name.decode() if isinstance(name, bytes) else str(name) for name in names]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: class_names has bytes that are not UTF-8: write texts") from error
    if repeated := sorted({text for text in texts if texts.count(text) > 1}):
        raise ValueError(f"{path}: class_names has {first_few(repeated)} more than once: give each class its own name")
    return tuple(texts)


def _native(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _channels_first(images: Tensor, where: str) -> Tensor:
    """Return images of shape (n, h, w), (n, h, w, c) or (n, c, h, w) in the last of these shapes."""
    if images.ndim == 3:
        return images[:, None]
    shape = tuple(images.shape)
    first, last = (images.ndim == 4 and shape[axis] in CHANNELS for axis in (1, 3))
    if first == last:
        which = "either axis may be the channels" if first else "it must be (n, h, w), (n, h, w, c) or (n, c, h, w)"
        raise ValueError(f"{where} has the shape {shape}: {which}, with 1 to 4 channels")
    return images if first else images.movedim(3, 1).contiguous()
