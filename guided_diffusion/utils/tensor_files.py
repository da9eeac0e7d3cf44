"""Reading files of tensors that may be damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch


def load_tensors(path: Path) -> Any:
    """Return the tensors and plain data in a file, on the CPU; no code in it is run.

    Raises:
        ValueError: If the file is missing, is damaged, or holds anything else.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise errors of many types
        raise ValueError(f"{path} is damaged, or holds code") from error
