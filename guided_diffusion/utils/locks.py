"""Locks on files and folders between processes. The system releases the locks of a process that dies.

Unix has ``flock``: waiting costs nothing, a folder can be locked itself, and no lock file is left. Windows has not;
there the locks are those of ``filelock``.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def try_folder_lock(folder: Path) -> Iterator[bool]:
    """Lock a folder for the block unless another process has locked it, and yield whether it was free.

    On a file system without locks it is always free. On Windows the file ``.lock`` in the folder is locked.
    """
    if fcntl is None:
        with _portable_lock(folder / ".lock") as is_free:
            yield is_free
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        yield _try_flock(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def file_lock(path: Path, why: str) -> Iterator[None]:
    """Hold the lock of a file in the block, after sleeping until no other process holds it.

    Args:
        path: The path of the lock file. It exists while it is locked; one that a killed process left is not locked.
        why: The reason for the wait, which is printed once.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if fcntl is None:
        with _portable_lock(path, why):
            yield
        return
    file = _open_locked(path, why)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):  # the file system has no locks
            fcntl.flock(file, fcntl.LOCK_UN)  # a forked process may still have it open
        file.close()


@contextmanager
def _portable_lock(path: Path, why: str | None = None) -> Iterator[bool]:
    """Lock a file by ``filelock`` and yield ``True``; if it is locked, wait, or without a ``why`` yield ``False``."""
    from filelock import FileLock, Timeout

    lock, is_free = FileLock(path), True
    try:
        lock.acquire(blocking=False)
    except Timeout:
        if why is None:
            is_free = False
        else:
            _announce(why)
            lock.acquire(poll_interval=0.5)
    try:
        yield is_free
    finally:
        lock.release()


def _try_flock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed, and return whether that was possible without waiting."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # the file system has no locks
        return True
    return True


def _open_locked(path: Path, why: str) -> IO[str]:
    """Open and lock the file at ``path``; start again if its previous holder removes it in between."""
    announced = False
    while True:
        file = path.open("w")
        if not _try_flock(file.fileno()):
            if not announced:
                _announce(why)
                announced = True
            fcntl.flock(file, fcntl.LOCK_EX)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        file.close()


def _announce(why: str) -> None:
    print(f"waiting: {why}", flush=True)
