"""Being told to stop while training: by a person, a scheduler that needs the machine, or a full clock."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from guided_diffusion.programs import Terminated, handling


class _Patience:
    """What SIGTERM does beside Lightning's own handler, which lets the training stop after the step."""

    def __init__(self) -> None:
        self.at_once = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not self.lightning_listens():
            raise Terminated
        if self.at_once:
            raise SIGTERMException

    def lightning_listens(self) -> bool:
        """It puts its handler before this one while its trainer runs."""
        return signal.getsignal(signal.SIGTERM) is not self


_patience = _Patience()


def preemptible() -> AbstractContextManager[None]:
    """Take SIGUSR1 and Ctrl-C for SIGTERM, at which Lightning stops after the step; Ctrl-C once more stops at once.

    With SIGUSR1 Slurm announces the end of a job. Lightning's own handler under Slurm would save in the middle of a
    step, elsewhere, and put the job in the queue once more; ``sbatch --requeue`` does that, and ``resume=auto`` the
    rest.
    """
    return handling({signal.SIGTERM: _patience, signal.SIGUSR1: _terminate, signal.SIGINT: _terminate_or_interrupt})


@contextmanager
def stopping_at_once(trainer: Trainer) -> Iterator[None]:
    """After the last step, which is saved, a signal need not wait for what follows; nor one that has come already."""
    if trainer.received_sigterm:
        raise SIGTERMException
    _patience.at_once = True
    try:
        yield
    finally:
        _patience.at_once = False


def _terminate(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate_or_interrupt(number: int, frame: FrameType | None) -> None:
    """At once where Lightning does not listen."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _patience.lightning_listens():
        raise KeyboardInterrupt
    _terminate(number, frame)
