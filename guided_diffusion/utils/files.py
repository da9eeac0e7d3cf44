"""The cache folder, atomic and durable writing of files, reading of saved tensors, and a hash of content."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path


def cache_dir() -> Path:
    """Return ``GUIDED_DIFFUSION_CACHE`` if it is set, else the user's cache folder for this package."""
    return Path(os.environ.get("GUIDED_DIFFUSION_CACHE") or user_cache_path("guided_diffusion"))


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


def flush_to_disk(path: Path) -> None:
    """Make the system write a file, or the names in a folder, to the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
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


def content_hash(*parts: Any) -> str:
    """Return 16 hexadecimal digits that depend on plain data and, for a ``Path``, on the content of the file."""
    content = hashlib.sha256()
    for part in parts:
        content.update(part.read_bytes() if isinstance(part, Path) else json.dumps(part, sort_keys=True).encode())
    return content.hexdigest()[:16]
