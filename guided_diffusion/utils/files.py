"""Where files go, and writing them so that a reader never sees half of one."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path


def cache_dir() -> Path:
    """``GUIDED_DIFFUSION_CACHE``, or the user's cache folder."""
    return Path(os.environ.get("GUIDED_DIFFUSION_CACHE") or user_cache_path("guided_diffusion"))


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path``, of the same suffix, which takes its place if the block succeeds."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}-{os.getpid()}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def flush_to_disk(path: Path) -> None:
    """Have the system write a file, or the names in a folder, to the disk now."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def content_hash(*parts: Any) -> str:
    """Sixteen characters that differ where plain data, or the contents of files, differ."""
    content = hashlib.sha256()
    for part in parts:
        content.update(part.read_bytes() if isinstance(part, Path) else json.dumps(part, sort_keys=True).encode())
    return content.hexdigest()[:16]
