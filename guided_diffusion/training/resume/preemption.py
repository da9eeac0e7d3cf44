"""Stopping a training at a signal: Ctrl-C, SIGTERM, SIGHUP, or Slurm's SIGUSR1 before the end of a job."""

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import FrameType

from pytorch_lightning import Trainer
from pytorch_lightning.utilities.exceptions import SIGTERMException

from guided_diffusion.utils.signals import Handler, Terminated, leave_closed_terminal, signal_handlers, stop_signals


def preemptible() -> AbstractContextManager[None]:
    """Treat SIGUSR1, SIGHUP and Ctrl-C as SIGTERM, at which Lightning stops after the step.

    A second Ctrl-C stops at once.

    Slurm announces the end of a job with SIGUSR1. Lightning's own handler under Slurm would save in the middle of a
    step, in another place, and requeue the job; here ``sbatch --requeue`` requeues it and ``resume=auto`` continues.
    On Windows, where Lightning handles no signals, the first one stops at once.
    """
    usual: dict[int, Handler] = dict.fromkeys(stop_signals(), _terminate)
    return signal_handlers(usual | {signal.SIGTERM: _leave_to_lightning, signal.SIGINT: _terminate_or_interrupt})


@contextmanager
def exit_on_sigterm(trainer: Trainer) -> Iterator[None]:
    """Raise ``SIGTERMException`` at once on SIGTERM, even on an earlier one, because the last step is already saved.

    Lightning would only take note of it, and tell the other processes, which may be waiting for this one.
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
    """Stop, unless Lightning's handler is installed: it calls this one, and stops the training itself."""
    if not _lightning_handles_sigterm():
        raise Terminated


def _lightning_handles_sigterm() -> bool:
    return signal.getsignal(signal.SIGTERM) is not _leave_to_lightning


def _terminate(number: int, frame: FrameType | None) -> None:
    leave_closed_terminal()
    signal.raise_signal(signal.SIGTERM)  # os.kill would end the process at once on Windows


def _terminate_or_interrupt(number: int, frame: FrameType | None) -> None:
    """Pass Ctrl-C on as SIGTERM if Lightning handles that; otherwise, and at the next Ctrl-C, stop at once."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if not _lightning_handles_sigterm():
        raise KeyboardInterrupt
    _terminate(number, frame)
