import signal
import threading

from guided_diffusion.utils.signals import signal_handlers


def test_a_handler_answers_its_signal_in_the_block_only():
    received = []
    before = signal.getsignal(signal.SIGUSR1)
    with signal_handlers({signal.SIGUSR1: lambda number, frame: received.append(number)}):
        signal.raise_signal(signal.SIGUSR1)
    assert received == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) == before


def test_a_thread_that_may_not_set_handlers_runs_its_block_without_them():
    done = []

    def run():
        with signal_handlers({signal.SIGUSR1: lambda number, frame: None}):
            done.append(signal.getsignal(signal.SIGUSR1))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done == [signal.getsignal(signal.SIGUSR1)]
