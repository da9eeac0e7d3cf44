"""Locks between processes. The system takes them from a process that dies."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def try_lock(descriptor: int) -> bool:
    """Whether no other process has locked this file or folder; it is then locked until it is closed."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


@contextmanager
def turn(path: Path, why: str) -> Iterator[None]:
    """One process at a time holds this file; the others wait, and say why."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if not try_lock(file.fileno()):
            print(f"waiting: {why}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
