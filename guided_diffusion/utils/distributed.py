"""The rank of this process, and printing from the first one only."""

from __future__ import annotations

from pytorch_lightning.utilities import rank_zero_only


def rank() -> int:
    """Of this process, known before there is a trainer."""
    return rank_zero_only.rank  # type: ignore[attr-defined]


@rank_zero_only
def rank_zero_print(line: str) -> None:
    """Print; of several processes, the first."""
    print(line, flush=True)
