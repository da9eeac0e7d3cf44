"""Being told to stop: by a person, a scheduler that needs the machine, or a full clock."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STATUS = 128 + signal.SIGTERM
"""Of a program that SIGTERM has ended, as shells have it."""


@contextmanager
def preemptible() -> Iterator[None]:
    """Take SIGUSR1 and Ctrl-C for SIGTERM, at which Lightning stops after the step; Ctrl-C once more stops at once.

    With SIGUSR1 Slurm announces the end of a job. Lightning's own handler under Slurm would save in the middle of a
    step, elsewhere, and put the job in the queue once more; ``sbatch --requeue`` does that, and ``resume=auto`` the
    rest.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {signal.SIGUSR1: _terminate, signal.SIGINT: _terminate_or_interrupt}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate_or_interrupt(number: int, frame: FrameType | None) -> None:
    """At once where nothing waits for SIGTERM, which would end the process without a word."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGTERM) == signal.SIG_DFL:
        raise KeyboardInterrupt
    _terminate(number, frame)
