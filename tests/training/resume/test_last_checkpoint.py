"""When ``last.ckpt`` is saved."""

import pytest
import torch
from pytorch_lightning import Callback

from guided_diffusion.training.callbacks import LastCheckpoint


class Saves(Callback):
    """Notes the step of every checkpoint that is saved."""

    def __init__(self):
        self.steps = []

    def on_save_checkpoint(self, trainer, pl_module, checkpoint):
        self.steps.append(checkpoint["global_step"])


@pytest.fixture
def saved(fit, tmp_path):
    """``saved(*overrides, every_n_steps=...)`` trains and returns the steps of the checkpoints."""

    def train(*overrides, callbacks=(), **arguments):
        saves, last = Saves(), LastCheckpoint(str(tmp_path / "checkpoints"), **arguments)
        fit(*overrides, callbacks=[saves, *callbacks, last])
        assert [path.name for path in last.path.parent.iterdir()] == ["last.ckpt"]
        assert torch.load(last.path, weights_only=True)["global_step"] == saves.steps[-1]
        return saves.steps

    return train


def test_an_interval_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="every_n_steps must be at least 1, got 0"):
        LastCheckpoint(str(tmp_path), every_n_steps=0)


@pytest.mark.parametrize(("max_steps", "steps"), [(4, [2, 4]), (5, [2, 4, 5])])
def test_it_is_saved_at_the_interval_and_once_after_the_last_step(max_steps, steps, saved):
    assert saved(f"trainer.max_steps={max_steps}", every_n_steps=2) == steps


def test_it_is_saved_at_the_end_of_the_last_epoch(saved):
    epochs = ["trainer.max_steps=-1", "trainer.max_epochs=1", "module.lr_scheduler.total_steps=9"]
    assert saved("data.num_train=80", *epochs) == [3]


def test_it_is_saved_when_training_is_stopped_early(saved):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.global_step == 3

    assert saved(callbacks=[Stop()]) == [3]


def test_a_folder_that_cannot_be_written_is_an_error(fit, tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="checkpoints"):
        fit(callbacks=[LastCheckpoint(str(tmp_path / "checkpoints"))])
