"""A training that is told to stop saves, says how to continue, and ends with status 143."""

import signal

import pytest


@pytest.mark.parametrize(
    "name", ["SIGINT", *(pytest.param(name, marks=pytest.mark.slow) for name in ("SIGTERM", "SIGUSR1", "SIGHUP"))]
)
def test_a_training_that_is_told_to_stop_says_how_to_continue(name, server, short, only_run, saved_step, tmp_path):
    stopped = server(tmp_path, *short, signal=getattr(signal, name), at=["step", 4])
    assert stopped.status == 143
    step = saved_step(only_run(tmp_path))
    line = f"stopped by a signal after step {step}; to go on: python -m guided_diffusion.train "
    assert [text for text in stopped.printed.splitlines() if text.startswith(line)]
    assert "Traceback" not in stopped.printed


@pytest.mark.slow
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGUSR1"])
def test_a_signal_to_the_training_and_its_workers_stops_it_with_a_checkpoint(
    name, server, short, only_run, saved_step, tmp_path
):
    stopped = server(tmp_path, *short, "data.num_workers=2", signal=getattr(signal, name), at=["group", 4])
    assert (stopped.status, saved_step(only_run(tmp_path))) == (143, 5), stopped.printed
    assert "Traceback" not in stopped.printed
