"""Decoding image files of any size and mode to uint8 tensors of one size, once; the result is kept in the cache."""

import hashlib
import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Int, UInt8
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from guided_diffusion.data.batches import identity, start_worker
from guided_diffusion.utils.files import cache_dir, content_hash, load_tensors, save_tensors
from guided_diffusion.utils.locks import file_lock
from guided_diffusion.utils.progress import progress_bar
from guided_diffusion.utils.signals import stop_signals_blocked

VERSION = 1
"""The version of what ``read_image`` returns. It is incremented when that changes, so that files are decoded anew."""
MODES = {1: "L", 3: "RGB"}
"""The mode, in Pillow's words, of an image with this number of channels."""
PIECE = 2**12
"""The size in bytes of each of the three pieces of a file that are hashed."""


class Decoded(NamedTuple):
    """The images of some files, and what is known of the files."""

    images: UInt8[Tensor, "n c h w"]
    """The images, zero where a file can't be read."""
    sizes: Int[Tensor, "n 2"]
    """The width and the height of each file's image."""
    modes: list[str]
    """The mode of each file's image, in Pillow's words."""
    broken: dict[int, str]
    """The reason why a file can't be read, by its position among the files."""

    def put(self, row: int, image: Tensor, size: tuple[int, int], mode: str, reason: str) -> None:
        """Set the image of a file and what is known of it; the reason is empty if the file can be read."""
        self.images[row], self.sizes[row], self.modes[row] = image, torch.tensor(size), mode
        self.broken.pop(row, None)
        if reason:
            self.broken[row] = reason

    def describe(self) -> str:
        """Return the range of the sizes, the modes and the number of broken files, on one line."""
        (width, height), (widest, highest) = self.sizes[self.sizes[:, 0] > 0].aminmax(dim=0)
        modes = ", ".join(f"{count:,} {mode}" for mode, count in Counter(filter(None, self.modes)).most_common())
        broken = f"; {len(self.broken):,} left out that can't be read" if self.broken else ""
        return f"{width} to {widest} pixels wide, {height} to {highest} high; {modes}{broken}"

    def is_almost_black(self) -> bool:
        """Return whether no pixel of the 16-bit files exceeds a twelfth of white; 12 bits reach a sixteenth."""
        rows = [row for row, mode in enumerate(self.modes) if mode.startswith("I")]
        return bool(rows) and all(self.images[row].max() <= 20 for row in rows)


def read_image(
    path: Path, channels: int, height: int, width: int
) -> tuple[UInt8[Tensor, "channels height width"], tuple[int, int], str]:
    """Return an image, cropped to the middle and resized, and the size and the mode of the file.

    It is turned as its EXIF data says. Transparent pixels become white; 16 bits are reduced to 8.

    Raises:
        OSError, ValueError: If the file can't be read, or has pixels of a type with no known range.
    """
    with Image.open(path) as file:
        image = ImageOps.exif_transpose(file)
        assert image is not None
        converted = _convert(image, MODES[channels])
        fitted = ImageOps.fit(converted, (width, height), Image.Resampling.BICUBIC)  # Pillow's resizing is antialiased
    pixels = torch.from_numpy(np.array(fitted)).reshape(height, width, channels)
    return pixels.permute(2, 0, 1), image.size, file.mode


def decode(root: Path, files: Sequence[Path], channels: int, size: tuple[int, int], num_workers: int = 0) -> Decoded:
    """Return the images of files below ``root``, from the cache if they did not change since they were decoded.

    Two processes do not decode at the same time: the second waits, and then reads the file of the first.

    Args:
        size: The height and the width of the images.
        num_workers: The number of worker processes that decode; with 0 this process does.
    """
    checked = progress_bar(files, desc="checking images", unit=" images", delay=1)
    listing = [[path.relative_to(root).as_posix(), _state_of(path)] for path in checked]
    key = content_hash([VERSION, channels, size, listing])
    path = cache_dir() / f"images-{root.resolve().name}-{key}.pt"
    _remove_unfinished(path.parent)
    dataset = _Files(files, channels, *size)
    with file_lock(path.with_suffix(".lock"), f"another process reads the images of {root}"):
        try:
            decoded = Decoded(**load_tensors(path, mmap=True))
        except ValueError:  # there is none, or it is damaged
            save_tensors(_decode(dataset, num_workers)._asdict(), path)
            return Decoded(**load_tensors(path, mmap=True))
    for row in list(decoded.broken):  # the reason may be gone, as a lost connection
        decoded.put(row, *dataset[row])
    return decoded


def _remove_unfinished(folder: Path) -> None:
    """Remove files that processes were writing when they were killed: those that have not grown for a day."""
    for path in folder.glob(".images-*.pt"):
        with suppress(OSError):  # another process removes it, or finishes it
            if time.time() - path.stat().st_mtime > 24 * 3600:
                path.unlink()


@dataclass
class _Files(Dataset[Any]):
    """A dataset of files, read as (image, size, mode, reason why it can't be read)."""

    files: Sequence[Path]
    channels: int
    height: int
    width: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, tuple[int, int], str, str]:
        try:
            return *read_image(self.files[index], self.channels, self.height, self.width), ""
        except Exception as error:  # a damaged file makes Pillow raise errors of many types
            reason = " ".join(str(error).split()).replace(repr(str(self.files[index])), "it")
            return torch.zeros(self.channels, self.height, self.width, dtype=torch.uint8), (0, 0), "", reason


def _decode(files: _Files, num_workers: int) -> Decoded:
    images = torch.empty(len(files), files.channels, files.height, files.width, dtype=torch.uint8)
    decoded = Decoded(images, torch.zeros(len(files), 2, dtype=torch.int64), [""] * len(files), {})
    generator = torch.Generator()  # by default a loader draws from the global one, which makes the initial weights
    loader = DataLoader(
        files,
        batch_size=None,
        num_workers=num_workers,
        collate_fn=identity,
        generator=generator,
        worker_init_fn=start_worker,
    )
    with stop_signals_blocked():
        items = iter(loader)
    bar = progress_bar(items, total=len(files), desc="reading images", unit=" images", delay=1)
    for row, item in enumerate(bar):
        decoded.put(row, *item)
    return decoded


def _state_of(path: Path) -> tuple[int, int, str] | None:
    """Return the size of a file, its time and a hash of three pieces, which are all of it up to 12 KB.

    ``None`` if there is no such file, as for a link to nothing, or it may not be read.

    Raises:
        OSError: If reading fails otherwise.
    """
    pieces = hashlib.sha256()
    try:
        with path.open("rb") as file:
            state = os.fstat(file.fileno())
            for start in (0, (state.st_size - PIECE) // 2, state.st_size - PIECE):
                file.seek(max(0, start))
                pieces.update(file.read(PIECE))
    except (FileNotFoundError, PermissionError):
        return None
    return state.st_size, state.st_mtime_ns, pieces.hexdigest()


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers, whose range is unknown: convert it to 8 or 16 bits")
    if image.mode.startswith("I"):
        pixels = np.asarray(image).astype(np.float64)
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ValueError("its pixels have 32 bits, whose range is unknown: convert it to 8 or 16 bits")
        image = Image.fromarray((pixels / 257).round().astype(np.uint8))
    if "A" in image.getbands() or "transparency" in image.info:
        opaque = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(opaque, image.convert("RGBA"))
    return image.convert(mode)
