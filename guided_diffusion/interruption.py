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
    """Take SIGUSR1, with which Slurm announces the end of a job, for SIGTERM; Lightning stops at the next step.

    Lightning's own handler under Slurm would save in the middle of a step, elsewhere, and put the job in the
    queue once more; ``sbatch --requeue`` does that, and ``resume=auto`` the rest.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGUSR1, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGUSR1, before)


def _terminate(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)
