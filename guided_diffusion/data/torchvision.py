"""MNIST, Fashion-MNIST and CIFAR-10, downloaded and read by torchvision in its layout on disk."""

import gzip
import tarfile
import tempfile
import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.error import URLError

import torch
from torchvision import datasets

from guided_diffusion.data.base import Batch, ImageDataModule
from guided_diffusion.utils.files import atomic_write


class TorchvisionImages(ImageDataModule):
    """A dataset that torchvision reads from ``root``. Missing files are downloaded; others are never rewritten.

    A file that is there only in its archive is unpacked beside it, or, where that can't be written, into a temporary
    folder. Other arguments are those of ``ImageDataModule``.

    Args:
        root: The folder that holds the dataset's folder.

    Raises:
        FileNotFoundError: From ``prepare_data`` or ``setup``, if files are missing and can't be downloaded.
        ValueError: From ``setup``, if a file is damaged.
    """

    files: ClassVar[dict[str, int]]
    """The paths of the files, relative to ``root``, and their sizes in bytes."""
    archive: ClassVar[str | None] = None
    """The path of a tar file with all files; ``None`` if each has an archive of its own, with the suffix ``.gz``."""
    source: Callable[..., Any]
    """The dataset's class in torchvision."""

    def __init__(
        self,
        root: str | Path,
        batch_size: int,
        validation_size: int,
        flip: bool = False,
        seed: int = 0,
        split_seed: int = 0,
        balance: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, validation_size, flip, seed, split_seed, balance, num_workers)
        self.root = self._folder = Path(root)

    def prepare_data(self) -> None:
        if self._missing():
            self._unpack()
        if self._missing():
            self._download()

    def load(self, train: bool) -> Batch:
        self.prepare_data()
        for file, size in self.files.items():
            if (found := (self._folder / file).stat().st_size) != size:
                raise self._damaged(file, f"it has {found:,} bytes instead of {size:,}")
        try:
            return self._read(self.source(str(self._folder), train=train, download=False))
        except (RuntimeError, AssertionError, ValueError) as error:
            raise self._damaged(next(iter(self.files)).rpartition("/")[0], str(error)) from error

    def _unpack(self) -> None:
        """Unpack the missing files from their archives into ``root`` or, if it can't be written, a temporary folder."""
        found = {file: content for file, content in self._packed() if file in self._missing()}
        try:
            for file, content in found.items():
                with atomic_write(self.root / file) as path:
                    path.write_bytes(content)
        except OSError:
            self._temporary = tempfile.TemporaryDirectory(prefix=f"{self.name}-")
            self._folder = Path(self._temporary.name)
            for file in self.files:
                path = self._folder / file
                path.parent.mkdir(parents=True, exist_ok=True)
                if file in found:
                    path.write_bytes(found[file])
                elif (self.root / file).is_file():
                    path.symlink_to((self.root / file).absolute())

    def _packed(self) -> Iterator[tuple[str, bytes]]:
        """Yield the path and the content of each file in the archives."""
        for archive in [self.archive] if self.archive else [f"{file}.gz" for file in self._missing()]:
            if not (self.root / archive).is_file():
                continue
            try:
                if archive == self.archive:
                    yield from _members(self.root / archive)
                else:
                    yield archive.removesuffix(".gz"), gzip.decompress((self.root / archive).read_bytes())
            except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError) as error:
                raise self._damaged(archive, str(error)) from error

    @abstractmethod
    def _read(self, dataset: Any) -> Batch:
        """Return the images and labels of torchvision's dataset as tensors."""

    def _missing(self) -> list[str]:
        return [file for file in self.files if not (self._folder / file).is_file()]

    def _download(self) -> None:
        """Download into a temporary folder, and move the missing files from there to ``root``."""
        print(f"{self.name} is not in {self.root.absolute()}: downloading it")
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=self.root, prefix=".download-") as folder:
                self.source(folder, train=True, download=True)
                for file in self._missing():
                    (self.root / file).parent.mkdir(parents=True, exist_ok=True)
                    (Path(folder) / file).replace(self.root / file)
        except (URLError, RuntimeError, OSError) as error:
            raise FileNotFoundError(
                f"{self.name} is not in {self.root.absolute()} ({self._missing()[0]} is missing) and can't be "
                f"downloaded: {error}. Set GUIDED_DIFFUSION_DATA, or data.root, to the folder that has it in "
                f"torchvision's layout, or use data=digits, which needs no file"
            ) from error

    def _damaged(self, what: str, why: str) -> ValueError:
        return ValueError(f"{self.root / what} is damaged: {why}. Delete it and run again to download it anew")


def _members(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as archive:
        for member in archive:
            if content := archive.extractfile(member):
                yield member.name, content.read()


def _idx_files(name: str) -> dict[str, int]:
    return {
        f"{name}/raw/train-images-idx3-ubyte": 47_040_016,
        f"{name}/raw/train-labels-idx1-ubyte": 60_008,
        f"{name}/raw/t10k-images-idx3-ubyte": 7_840_016,
        f"{name}/raw/t10k-labels-idx1-ubyte": 10_008,
    }


class MNIST(TorchvisionImages):
    """60,000 + 10,000 handwritten digits, 28x28 in grey (LeCun, Cortes and Burges; CC BY-SA 3.0)."""

    name = "mnist"
    channels = 1
    image_size = 28
    class_names = tuple("0123456789")
    source = datasets.MNIST
    files = _idx_files("MNIST")

    def _read(self, dataset: Any) -> Batch:
        return Batch(dataset.data[:, None], dataset.targets.long())


class FashionMNIST(MNIST):
    """60,000 + 10,000 pictures of clothing, 28x28 in grey (Xiao et al. 2017, arXiv 1708.07747; MIT)."""

    name = "fashion_mnist"
    class_names = (
        "T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    source = datasets.FashionMNIST
    files = _idx_files("FashionMNIST")


class CIFAR10(TorchvisionImages):
    """50,000 + 10,000 small photographs, 32x32 in colour (Krizhevsky 2009)."""

    name = "cifar10"
    channels = 3
    image_size = 32
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    source = datasets.CIFAR10
    archive = "cifar-10-python.tar.gz"
    files: ClassVar = {
        f"cifar-10-batches-py/data_batch_{number}": size
        for number, size in enumerate((31_035_704, 31_035_320, 31_035_999, 31_035_696, 31_035_623), start=1)
    } | {"cifar-10-batches-py/test_batch": 31_035_526, "cifar-10-batches-py/batches.meta": 158}

    def _read(self, dataset: Any) -> Batch:
        images = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
        return Batch(images, torch.tensor(dataset.targets))
