"""The exit statuses and the exception for programs that a signal ends, and temporary signal handlers."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
"""The exit status after Ctrl-C."""
TERMINATED = 128 + signal.SIGTERM
"""The exit status after SIGTERM or SIGUSR1."""

STOP_SIGNALS: tuple[int, ...] = tuple(vars(signal)[name] for name in ("SIGTERM", "SIGUSR1") if name in vars(signal))
"""The signals besides Ctrl-C that end a program: SIGTERM, and except on Windows SIGUSR1, which Slurm sends."""

Handler = Callable[[int, FrameType | None], None]


class Terminated(KeyboardInterrupt):
    """The exception by which SIGTERM or SIGUSR1 ends a program in the same way as Ctrl-C."""


@contextmanager
def signal_handlers(handlers: Mapping[int, Handler]) -> Iterator[None]:
    """Install handlers, by signal number, for the block; outside the main thread, change nothing."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
