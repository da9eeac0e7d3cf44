"""The cache folder, checks of folders, atomic and durable writing of files, saved tensors, and a hash of content."""

import errno
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path


def cache_dir() -> Path:
    """Return ``GUIDED_DIFFUSION_CACHE`` if it is set, else the user's cache folder for this package."""
    return Path(os.environ.get("GUIDED_DIFFUSION_CACHE") or user_cache_path("guided_diffusion"))


def check_writable(folder: Path, name: str, needed: int = 0) -> None:
    """Raise ``OSError`` if files can't be written in a folder, which need not exist yet; leave nothing behind.

    Args:
        folder: The folder, or one that will be made.
        name: The name of the folder, or of the key that sets it, for the message.
        needed: The number of bytes that must be free.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            free = shutil.disk_usage(existing).free
    except OSError as error:
        raise type(error)(f"{name}: {folder} can't be written: {error.strerror or error}") from error
    if free < needed:
        raise OSError(f"{name}: {folder} has {free / 1e9:.3g} GB free, and {needed / 1e9:.3g} GB are needed")


def check_cache(needed: int = 0) -> None:
    """Raise ``OSError`` if the cache can't be written, or has fewer than ``needed`` bytes free."""
    check_writable(cache_dir(), "the cache (GUIDED_DIFFUSION_CACHE)", needed)


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path, and move the file written there to ``path`` if the block succeeds.

    The temporary path is in the same folder, which is made if it is missing, and has the same suffix.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


DISK_IS_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The errors of the system that more space would mend."""


def flush_to_disk(path: Path) -> None:
    """Make the system write a file, or the names in a folder, to the disk now; Windows has no call for a folder."""
    is_folder = path.is_dir()
    try:
        descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)  # Windows can't flush a read-only file
    except PermissionError:
        if is_folder:
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def load_tensors(path: Path, mmap: bool = False) -> Any:
    """Return the tensors and plain data in a file, on the CPU; no code in it is run.

    With ``mmap`` the tensors stay on the disk, and the system reads the parts that are used.

    Raises:
        ValueError: If the file is missing, is damaged, or holds anything else.
    """
    import torch  # here, so that --help need not wait for it

    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # a damaged file makes torch raise errors of many types
        raise ValueError(f"{path} is damaged, or holds code") from error


def save_tensors(content: Any, path: Path) -> None:
    """Write tensors and plain data to a file for ``load_tensors``, whole or not at all.

    Raises:
        OSError: If the file can't be written; the message says what to do.
    """
    import torch

    try:
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            torch.save(content, file)  # given a path, it hides the system's error
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__
        if not isinstance(cause, OSError):
            raise
        if cause.errno not in DISK_IS_FULL:
            raise OSError(f"{path} can't be written: {why_not_saved(error)}") from error
        in_cache = path.absolute().is_relative_to(cache_dir().absolute())
        other_disk = " or put the cache on another disk with GUIDED_DIFFUSION_CACHE" if in_cache else ""
        raise OSError(f"{path} can't be written: {why_not_saved(error)}; make space there{other_disk}") from error


def why_not_saved(error: OSError | RuntimeError) -> str:
    """Return the system's reason for an error of ``torch.save``, which is a RuntimeError where a file can't grow."""
    cause = error.__context__ if isinstance(error.__context__, OSError) else error
    return getattr(cause, "strerror", None) or str(cause).partition("\n")[0]


def content_hash(*parts: Any) -> str:
    """Return 16 hexadecimal digits that depend on plain data and, for a ``Path``, on the content of the file."""
    content = hashlib.sha256()
    for part in parts:
        content.update(part.read_bytes() if isinstance(part, Path) else json.dumps(part, sort_keys=True).encode())
    return content.hexdigest()[:16]
