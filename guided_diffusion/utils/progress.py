"""A progress bar that suits a terminal and a log file alike."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any

from tqdm import tqdm


def progress_bar(
    items: Iterable[Any] | None = None,
    *,
    description: str,
    total: float | None,
    unit: str = "it",
    scale_units: bool = False,
    initial: int = 0,
    keep: bool = True,
    quiet_seconds: float = 0,
    disable: bool = False,
) -> tqdm:
    """Return a tqdm bar on stderr, drawn twice a second in a terminal and every ten seconds elsewhere.

    Args:
        items: What the bar iterates over; None for a bar that its owner updates.
        keep: Leave the bar on the screen at the end.
        quiet_seconds: The seconds that must pass before the bar appears.
    """
    return tqdm(
        items,
        description,
        total,
        leave=keep,
        unit=unit,
        unit_scale=scale_units,
        initial=initial,
        delay=quiet_seconds,
        disable=disable,
        dynamic_ncols=True,
        file=sys.stderr,
        mininterval=0.5 if sys.stderr.isatty() else 10,
    )
