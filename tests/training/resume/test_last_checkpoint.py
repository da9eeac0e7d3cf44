import pytest
import torch
from pytorch_lightning import Callback

from guided_diffusion.training.callbacks import LastCheckpoint


def step(path):
    return torch.load(path, weights_only=True)["global_step"]


class Steps(Callback):
    """Notes at the end of every step which step the checkpoint is of."""

    def __init__(self, path):
        self.path = path
        self.saved = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.saved.append(step(self.path) if self.path.exists() else None)


def test_an_interval_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="every_n_steps must be at least 1, got 0"):
        LastCheckpoint(str(tmp_path), every_n_steps=0)


def test_it_is_saved_at_the_interval_and_after_the_last_step_that_is_no_multiple(fit, tmp_path):
    last = LastCheckpoint(str(tmp_path / "checkpoints"), every_n_steps=2)
    steps = Steps(last.path)
    fit("trainer.max_steps=5", callbacks=[steps, last])
    assert steps.saved == [None, None, 2, 2, 4]
    assert step(last.path) == 5


def test_nothing_else_is_left_in_the_folder(fit, tmp_path):
    last = LastCheckpoint(str(tmp_path / "checkpoints"), every_n_steps=2)
    fit("trainer.max_steps=5", callbacks=[last])
    assert [path.name for path in last.path.parent.iterdir()] == ["last.ckpt"]


def test_the_last_step_is_saved_once_when_the_interval_divides_it(fit, tmp_path, monkeypatch):
    saved = []
    save = LastCheckpoint._save
    monkeypatch.setattr(
        LastCheckpoint, "_save", lambda self, trainer: saved.append(trainer.global_step) or save(self, trainer)
    )
    fit("trainer.max_steps=4", callbacks=[LastCheckpoint(str(tmp_path), every_n_steps=2)])
    assert saved == [2, 4]


ONE_EPOCH = ["data.num_train=80", "module.lr_scheduler.total_steps=9", "trainer.max_steps=-1", "trainer.max_epochs=1"]


def test_it_is_saved_at_the_end_of_the_last_epoch(fit, tmp_path):
    last = LastCheckpoint(str(tmp_path))
    fit(*ONE_EPOCH, callbacks=[last])
    assert step(last.path) == 3


def test_it_is_saved_when_training_is_stopped_early(fit, tmp_path):
    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.global_step == 3

    last = LastCheckpoint(str(tmp_path))
    fit(callbacks=[Stop(), last])
    assert step(last.path) == 3


def test_a_folder_that_can_not_be_written_is_an_error(fit, tmp_path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    with pytest.raises(OSError, match="checkpoints"):
        fit(callbacks=[LastCheckpoint(str(tmp_path / "checkpoints"))])
