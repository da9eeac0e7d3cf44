"""Locks on files and folders between processes. The system releases the locks of a process that dies."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed, and return whether that was possible without waiting.

    Where the file system has no locks this always succeeds.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        return True
    return True


@contextmanager
def file_lock(path: Path, why: str) -> Iterator[None]:
    """Hold the lock of a file in the block, after sleeping until no other process holds it.

    Args:
        path: The path of the lock file. It exists while it is locked; one that a killed process left is not locked.
        why: The reason to wait, which is printed once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file = _open_locked(path, why)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # the file system has no locks
            fcntl.flock(file, fcntl.LOCK_UN)  # a forked process may still have it open
        file.close()


def _open_locked(path: Path, why: str) -> IO[str]:
    """Open and lock the file at ``path``; start again if its previous holder removes it in between."""
    announced = False
    while True:
        file = path.open("w")
        if not try_lock(file.fileno()):
            if not announced:
                print(f"waiting: {why}", flush=True)
                announced = True
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()
