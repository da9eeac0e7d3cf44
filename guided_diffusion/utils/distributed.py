"""The rank of this process, and printing from the first process only."""

from pytorch_lightning.utilities import rank_zero_only


def rank() -> int:
    """Return the rank of this process, which is known before there is a trainer."""
    return rank_zero_only.rank  # type: ignore[attr-defined]


@rank_zero_only
def rank_zero_print(line: str) -> None:
    """Print a line if this is the first of several processes."""
    print(line, flush=True)
