"""A progress bar that suits a terminal and a log file alike."""

import sys
from typing import Any

from tqdm import tqdm


def progress_bar(*items: Any, **settings: Any) -> tqdm:
    """Return a bar on stderr, drawn twice a second in a terminal and every ten seconds elsewhere.

    The arguments are those of tqdm, which rejects unknown ones.
    """
    interval = 0.5 if sys.stderr.isatty() else 10
    return tqdm(*items, **settings, file=sys.stderr, dynamic_ncols=True, mininterval=interval)
