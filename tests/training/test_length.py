"""The length of a training in epochs instead of steps."""

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning import Callback

from guided_diffusion.cli.train import train
from guided_diffusion.training.length import reached_end


@pytest.fixture
def minimal(tiny):
    return [*(override for override in tiny if not override.startswith("callbacks.")), "callbacks=minimal"]


def last(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.slow
def test_epochs_train_the_same_weights_as_that_many_steps(compose, minimal, tmp_path):
    """Two epochs of three batches each; the schedule of the learning rate spans all six steps."""
    data = ["data.num_train=110", "data.validation_size=10", "data.batch_size=32"]
    train(compose(*minimal, *data, "trainer.max_epochs=2", output_dir=tmp_path / "epochs"))
    train(compose(*minimal, *data, "trainer.max_steps=6", output_dir=tmp_path / "steps"))
    epochs, steps = last(tmp_path / "epochs"), last(tmp_path / "steps")
    assert epochs["global_step"] == 6
    assert epochs["lr_schedulers"] == steps["lr_schedulers"]
    for key, value in steps["current_model_state"].items():
        assert torch.equal(value, epochs["current_model_state"][key]), key
    assert (tmp_path / "epochs" / "finished.txt").is_file()
    assert (tmp_path / "epochs" / "checkpoints" / "best.ckpt").is_file()
    recorded = OmegaConf.load(tmp_path / "epochs" / "config.yaml")
    recorded.output_dir = str(tmp_path / "again")
    text = OmegaConf.to_yaml(recorded).replace(str(tmp_path / "epochs"), str(tmp_path / "again"))
    train(OmegaConf.create(text))
    assert last(tmp_path / "again")["lr_schedulers"] == steps["lr_schedulers"]


def test_steps_and_epochs_on_one_command_line_are_refused(call, minimal):
    called = call("train", *minimal, "trainer.max_epochs=2", "output_dir=here")
    assert called.status == 1
    assert called.err.startswith("error: trainer.max_steps and trainer.max_epochs both give the length of the training")


@pytest.mark.slow
def test_a_training_that_is_stopped_has_not_reached_its_end(fit):
    ends = []

    class Stop(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            trainer.should_stop = trainer.global_step == 3

        def on_train_end(self, trainer, pl_module):
            ends.append(reached_end(trainer))

    fit(callbacks=[Stop()])
    fit("trainer.max_steps=3", callbacks=[Stop()])
    assert ends == [False, True]
