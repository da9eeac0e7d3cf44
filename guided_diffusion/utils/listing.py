"""Lists the files of the user's own dataset, and hashes them to tell whether two trainings have the same data."""

import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from guided_diffusion.utils.files import content_hash

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")
"""The suffixes of images: those of torchvision's ``ImageFolder``, and ``.gif``."""


def is_visible(name: str) -> bool:
    """Return whether a file or folder is the user's: not hidden, and not one that macOS adds to archives."""
    return not name.startswith(".") and name != "__MACOSX"


def image_files(folder: Path) -> Iterator[Path]:
    """Yield the visible images in a folder and those below it, also in linked ones, in order, and once each.

    Raises:
        OSError: If a folder can't be read; the error names it.
    """
    visited = set()
    for parent, folders, names in os.walk(folder, onerror=_raise, followlinks=True):
        place = os.path.realpath(parent)
        folders[:] = sorted(filter(is_visible, folders)) if place not in visited else []
        for name in sorted(names) if place not in visited else ():
            if is_visible(name) and name.lower().endswith(IMAGE_SUFFIXES):
                yield Path(parent) / name
        visited.add(place)


def _raise(error: OSError) -> None:
    raise error


def data_hash(path: str | Path | None) -> str | None:
    """Return a hash of the images in a folder, by their names and sizes, or of the content of a NumPy archive.

    It depends neither on the place of the data nor on the times of the files. ``None`` if the data can't be read.
    """
    if path is None:
        return None
    path = Path(path)
    try:
        if path.is_dir():
            return content_hash([[file.relative_to(path).as_posix(), _size_of(file)] for file in image_files(path)])
        with zipfile.ZipFile(path) as archive:
            return content_hash([[one.filename, one.file_size, one.CRC] for one in archive.infolist()])
    except (OSError, zipfile.BadZipFile):
        return None


def _size_of(path: Path) -> int | None:
    """Return the size of a file, or ``None`` if it can't be found out, for instance for a link to nothing."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def first_few(names: Sequence[str], most: int = 5) -> str:
    """Return names for a message: the first ``most``, and the number of the others."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
