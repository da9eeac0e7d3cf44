"""How the C library holds the memory of tensors."""

from __future__ import annotations

import ctypes
import os
import platform

SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES")
"""A user's own, in the environment."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep freed memory for the next tensor, instead of giving it back to the system.

    By default large tensors come from the system and go back to it, and each of their pages is a fault anew: sampling
    on one core in batches of 250 took 1.2 times as long so, a training step 1.03 times. A user's own settings stay, and
    other C libraries are left as they are.
    """
    if platform.libc_ver()[0] == "glibc" and not any(name in os.environ for name in SETTINGS):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
        libc.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)
