"""Signals that end a program, and who answers them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT


TERMINATED = 128 + signal.SIGTERM
"""Statuses of a program that Ctrl-C, or SIGTERM or SIGUSR1, has ended, as shells have them."""


Handler = Callable[[int, FrameType | None], None]


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGUSR1 ends a program in the way that Ctrl-C does."""


@contextmanager
def signal_handlers(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """Let these functions answer these signals. Only the main thread can: elsewhere nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
