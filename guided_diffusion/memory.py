"""Out of memory, in the user's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

SIGNS = ("out of memory", "can't allocate memory", "not enough memory")
"""How torch says so, on a GPU and on a CPU."""


@contextmanager
def naming_memory(key: str) -> Iterator[None]:
    """Where memory does not suffice raise a ``ValueError`` that names the setting to halve."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and not any(s in str(error) for s in SIGNS):
            raise
        raise ValueError(f"out of memory: halve {key} ({(str(error) or 'MemoryError').splitlines()[0]})") from error
