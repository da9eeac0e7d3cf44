"""A training that stops before its end says so, is not finished, and can be resumed exactly."""

import pytest
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import EarlyStopping

from guided_diffusion.training.callbacks import LastCheckpoint, Resumable
from guided_diffusion.training.resume.early_end import STOPPED, EarlyEnd, seconds_of


class StopAfter(Callback):
    """Stops the training after a step, as a user's callback may."""

    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        trainer.should_stop = trainer.global_step == self.step


@pytest.fixture
def note(fit, tmp_path):
    """``note(callback)`` trains four steps, or fewer, and returns what the training notes about its end."""

    def train(*callbacks):
        last = LastCheckpoint(str(tmp_path / "checkpoints"))
        fit(callbacks=[Resumable(), EarlyEnd(tmp_path), *callbacks, last])
        return (tmp_path / STOPPED).read_text() if (tmp_path / STOPPED).is_file() else None

    return train


def test_max_time_takes_the_forms_that_lightning_takes():
    assert seconds_of(None) is None
    assert seconds_of("01:02:03:04") == 93784
    assert seconds_of({"minutes": 2}) == 120


def test_a_training_that_reaches_its_end_leaves_no_note(note):
    assert note() is None


def test_a_training_that_a_callback_stops_notes_the_step(note):
    assert note(StopAfter(3)) == "stopped by a callback after step 3 of 4\n"


def test_early_stopping_is_an_end(note):
    assert note(EarlyStopping("val/loss", stopping_threshold=1e9)) is None


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 5, 6])
def test_a_training_stopped_by_max_time_is_not_finished_and_goes_on_exactly(
    step, server, short, uninterrupted, only_run, saved_step, assert_same, tmp_path
):
    """Step 5 is within an epoch and between two validations, step 6 at the end of both."""
    limit = "trainer.max_time=01:00:00:00"
    stopped = server(tmp_path, *short, limit, signal=0, at=["time over", step])
    assert stopped.status == 0, stopped.printed
    assert f"stopped by trainer.max_time after step {step} of 11; to go on: python -m " in stopped.printed
    assert "Everything of this run" not in stopped.printed
    run = only_run(tmp_path)
    assert not (run / "finished.txt").exists()
    assert step == 0 or saved_step(run) == step
    resumed = server(tmp_path, *short, "resume=auto")
    assert resumed.status == 0, resumed.printed
    assert step == 0 or f"continuing from step {step} in {run}" in resumed.printed
    assert (run / "finished.txt").exists()
    assert not (run / STOPPED).exists()
    assert_same(run, uninterrupted)
