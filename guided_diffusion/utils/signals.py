"""Signals that end a program: exit statuses, an exception, temporary handlers, and workers that outlive them."""

import multiprocessing
import os
import signal
import stat
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import FrameType

INTERRUPTED = 128 + signal.SIGINT
"""The exit status after Ctrl-C."""
TERMINATED = 128 + signal.SIGTERM
"""The exit status after SIGTERM, SIGUSR1 or SIGHUP."""

Handler = Callable[[int, FrameType | None], None]


class Terminated(KeyboardInterrupt):
    """The exception by which SIGTERM, SIGUSR1 or SIGHUP ends a program in the same way as Ctrl-C."""


def stop_signals() -> list[int]:
    """Return the signals besides Ctrl-C that end a program.

    They are SIGTERM, and except on Windows SIGUSR1, which Slurm sends, and SIGHUP, which comes when a terminal or an
    ssh session is closed. SIGHUP is left out where it is ignored, as ``nohup`` arranges.
    """
    found = [vars(signal)[name] for name in ("SIGTERM", "SIGUSR1", "SIGHUP") if name in vars(signal)]
    return [one for one in found if one.name != "SIGHUP" or signal.getsignal(one) != signal.SIG_IGN]


def leave_closed_terminal() -> None:
    """Send output nowhere instead of to a terminal that was closed, where each further line would be an error."""
    for descriptor in (1, 2):
        with suppress(OSError):  # the shell may have closed it
            if stat.S_ISCHR(os.fstat(descriptor).st_mode) and not os.isatty(descriptor):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, descriptor)
                os.close(nowhere)


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


@contextmanager
def stop_signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and the stop signals in this thread, so that processes started in the block begin without them.

    In a program with other threads, the handlers may still run in the block.

    On macOS and Windows, which can't tell who sends a signal, change nothing: nothing could end such a process.
    """
    if not hasattr(signal, "sigwaitinfo"):
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, *stop_signals()})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def leave_signals_to_parent() -> None:
    """Make a worker process ignore signals to the whole process group: the main process decides when to stop.

    Only SIGTERM from the main process ends it: Python sends that to the workers when it exits, and waits for them. On
    macOS and Windows any SIGTERM ends it.
    """
    for number in {signal.SIGINT, *stop_signals()} - {signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigwaitinfo"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_exit_with_parent, daemon=True).start()


def _exit_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
        pass
    os._exit(0)
