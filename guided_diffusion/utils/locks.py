"""Locks between processes. The system takes them from a process that dies."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


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
def file_lock(path: Path, why: str) -> Iterator[None]:
    """One process at a time holds this file; the others wait, and say why. One that a killed process left is free."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _held(path, why)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_UN)  # a forked process may still have it open
        file.close()


def _held(path: Path, why: str) -> IO[str]:
    """The file, locked; it may have been removed by the one before while this one waited."""
    while True:
        file = path.open("w")
        if not try_lock(file.fileno()):
            print(f"waiting: {why}", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
