"""Being told to stop while training: by a person, a scheduler that needs the machine, or a full clock."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from guided_diffusion.utils.signals import Handler, Terminated, signal_handlers


def preemptible() -> AbstractContextManager[None]:
    """Take SIGUSR1 and Ctrl-C for SIGTERM, at which Lightning stops after the step; Ctrl-C once more stops at once.

    With SIGUSR1 Slurm announces the end of a job. Lightning's own handler under Slurm would save in the middle of a
    step, elsewhere, and put the job in the queue once more; ``sbatch --requeue`` does that, and ``resume=auto`` the
    rest.
    """
    handlers: dict[int, Handler] = {
        signal.SIGTERM: _leave_to_lightning,
        signal.SIGUSR1: _terminate,
        signal.SIGINT: _terminate_or_interrupt,
    }
    return signal_handlers(handlers)


@contextmanager
def exit_on_sigterm(trainer: Trainer) -> Iterator[None]:
    """After the last step, which is saved, SIGTERM need not wait for what follows; nor one that has come already.

    Lightning would note it, and tell the other processes, which may be waiting for this one.
    """
    if trainer.received_sigterm:
        raise SIGTERMException

    def stop(number: int, frame: FrameType | None) -> None:
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGTERM)
        raise SIGTERMException

    with signal_handlers({signal.SIGTERM: stop}):
        yield


def _leave_to_lightning(number: int, frame: FrameType | None) -> None:
    """Its handler comes before this one while its trainer runs."""
    if not _lightning_listens():
        raise Terminated


def _lightning_listens() -> bool:
    return signal.getsignal(signal.SIGTERM) is not _leave_to_lightning


def _terminate(number: int, frame: FrameType | None) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _terminate_or_interrupt(number: int, frame: FrameType | None) -> None:
    """At once where Lightning does not listen."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _lightning_listens():
        raise KeyboardInterrupt
    _terminate(number, frame)
