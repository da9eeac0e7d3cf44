import os
import pty
import signal
import threading

import pytest

from guided_diffusion.utils.signals import leave_closed_terminal, signal_handlers, stop_signals


def test_a_handler_answers_its_signal_in_the_block_only():
    received = []
    before = signal.getsignal(signal.SIGUSR1)
    with signal_handlers({signal.SIGUSR1: lambda number, frame: received.append(number)}):
        signal.raise_signal(signal.SIGUSR1)
    assert received == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_closed_terminal_stops_a_program_unless_nohup_has_started_it(heeds_hangup):
    assert {*stop_signals()} == {signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP}
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert {*stop_signals()} == {signal.SIGTERM, signal.SIGUSR1}


def test_output_to_a_closed_terminal_goes_nowhere():
    terminal, output = pty.openpty()
    kept = os.dup(1)
    os.dup2(output, 1)
    try:
        leave_closed_terminal()
        assert os.isatty(1)  # it is still open
        os.close(terminal)
        with pytest.raises(OSError, match="Input/output error"):
            os.write(1, b"lost")
        leave_closed_terminal()
        assert os.write(1, b"nowhere") == 7
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(output)


def test_a_thread_that_may_not_set_handlers_runs_its_block_without_them():
    done = []

    def run():
        with signal_handlers({signal.SIGUSR1: lambda number, frame: None}):
            done.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [signal.getsignal(signal.SIGUSR1)]
