"""Continuing from a checkpoint with more steps, or with other settings of the optimizer and the devices."""

import csv
import signal

import pytest
import torch
from omegaconf import OmegaConf
from pytorch_lightning import LightningModule, Trainer
from torch.optim import SGD
from torch.optim.lr_scheduler import LinearLR

from guided_diffusion.cli.train import train
from guided_diffusion.training.resume.find_run import Start, find_start
from guided_diffusion.training.resume.loop_state import Resumable
from guided_diffusion.training.resume.run_files import config_of
from guided_diffusion.training.resume.train_longer import CONTINUED_FROM, NewSettings


@pytest.fixture
def config(uninterrupted):
    """``config({key: value})`` is the config of the finished run of eleven steps with other values."""

    def changed(values, **others):
        node = OmegaConf.create(config_of(uninterrupted))
        for key, value in values.items():
            OmegaConf.update(node, key, value)
        return OmegaConf.to_container(node) | {"resume": str(uninterrupted)} | others

    return changed


@pytest.fixture
def longer(config):
    """The changes of a training of 20 steps with a tenth of the learning rate and a larger batch."""
    changes = {"module.optimizer.lr": 2e-4, "module.lr_scheduler.max_lr": 2e-4, "data.batch_size": 20}
    return changes | {"trainer.max_steps": 20, "module.lr_scheduler.total_steps": 20}


def saved(run, name="last.ckpt"):
    return torch.load(run / "checkpoints" / name, weights_only=True)


def test_a_finished_run_is_continued_in_a_new_folder_and_a_line_says_what_is_carried_over(
    config, longer, uninterrupted, tmp_path, capsys
):
    start = find_start(config(longer), tmp_path, [])
    assert (start.folder, start.step, start.longer, start.in_place) == (tmp_path, 11, True, False)
    assert start.checkpoint == uninterrupted / "checkpoints" / "last.ckpt"
    batch = config_of(uninterrupted)["data"]["batch_size"]
    assert capsys.readouterr().out == (
        f"resume: going on from step 11 of {start.checkpoint} with its weights, their average, optimizer state and "
        f"step count, in a new epoch; changed: data.batch_size {batch} -> 20, module.optimizer.lr 0.002 -> 0.0002, "
        "trainer.max_steps 11 -> 20; the result is no longer that of an uninterrupted run\n"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trainer.max_steps": 20, "seed": 3}, "differs in seed; init_from=PATH starts"),
        ({"module.optimizer._target_": "torch.optim.SGD"}, "differs in module.optimizer._target_; init_from=PATH"),
        (
            {"trainer.max_steps": 11, "module.optimizer.lr": 1.0},
            "is at step 11: trainer.max_steps must be higher",
        ),
        (
            {"trainer.max_steps": -1, "trainer.max_epochs": 4},
            "has trained 4 epochs: trainer.max_epochs must be higher",
        ),
    ],
)
def test_changes_that_need_a_new_training_and_lengths_already_reached_are_refused(changes, message, config, tmp_path):
    with pytest.raises(ValueError, match=message):
        find_start(config(changes), tmp_path, [])


def test_weights_and_optimizer_state_are_carried_over_and_the_new_settings_hold(
    config, longer, uninterrupted, tmp_path
):
    before = {path: path.read_bytes() for path in uninterrupted.rglob("*") if path.is_file()}
    longer |= {"callbacks.last.dirpath": str(tmp_path / "checkpoints"), "callbacks.best.dirpath": str(tmp_path)}
    longer |= {"logger.csv.save_dir": str(tmp_path), "callbacks.last.every_n_steps": 100, "trainer.max_steps": 12}
    longer |= {"module.lr_scheduler.total_steps": 24}
    train(OmegaConf.create(config(longer, output_dir=str(tmp_path))))
    assert {path: path.read_bytes() for path in before} == before
    old, new = saved(uninterrupted), saved(tmp_path)
    assert new["global_step"] == 12
    assert new["lr_schedulers"][0]["last_epoch"] == 12
    assert new["lr_schedulers"][0]["total_steps"] == 24
    (optimizer,), (earlier,) = new["optimizer_states"], old["optimizer_states"]
    assert optimizer["state"][0]["step"] == earlier["state"][0]["step"] + 1
    assert optimizer["param_groups"][0]["max_lr"] == 2e-4
    weights = old["current_model_state"].items()
    change = torch.cat([(new["current_model_state"][key] - value).flatten() for key, value in weights])
    rates = [float(row["train/learning_rate"]) for row in rows(tmp_path) if row["train/learning_rate"]]
    assert 1e-4 < rates[-1] < 2e-4  # half of the schedule is over
    assert 0 < change.abs().max() < 2 * rates[-1]  # one step of Adam
    assert new["guided_diffusion"]["continued_from"]["step"] == 11
    assert rows(tmp_path)[: len(rows(uninterrupted))] == rows(uninterrupted)
    assert "step: 11" in (tmp_path / CONTINUED_FROM).read_text()


def test_a_run_that_was_stopped_before_its_first_checkpoint_is_continued_from_that_of_its_origin(
    config, longer, copied, tmp_path
):
    (copied / "earlier_1").mkdir()
    (copied / "checkpoints").rename(copied / "earlier_1" / "checkpoints")
    last = copied / "earlier_1" / "checkpoints" / "last.ckpt"
    again = config(longer, resume=str(copied))
    with pytest.raises(ValueError, match=r"no checkpoint can be read in .*; an earlier run there has .*: resume="):
        find_start(again, copied, [])
    (copied / CONTINUED_FROM).write_text(f"checkpoint: {last}\nstep: 4\n")
    start = find_start(again, copied, [])
    assert (start.folder, start.checkpoint, start.step, start.in_place) == (copied, last, 4, False)
    assert start.origin["checkpoint"] == str(last)


class Module(LightningModule):
    def configure_optimizers(self):
        optimizer = SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": LinearLR(optimizer)}}


def test_the_next_epoch_begins_and_validations_count_the_steps_of_the_new_settings(uninterrupted):
    """The checkpoint is made one of step 11 and one batch of its epoch; the new steps have two batches."""
    checkpoint = saved(uninterrupted)
    loop = checkpoint["loops"]["fit_loop"]
    progress, epoch = loop["epoch_loop.batch_progress"], loop["epoch_progress"]["current"]["ready"]
    progress["current"] = dict.fromkeys(progress["current"], 1)
    trainer = Trainer(accumulate_grad_batches=2, accelerator="cpu", logger=False, enable_checkpointing=False)
    for callback in (Resumable(), NewSettings()):
        callback.on_load_checkpoint(trainer, Module(), checkpoint)
    assert set(progress["total"].values()) == {22}
    assert set(progress["current"].values()) == {0}
    assert loop["epoch_progress"]["current"]["completed"] == epoch


def rows(run):
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_a_longer_training_is_resumed_exactly_and_is_no_training_from_the_start(
    server, short, uninterrupted, assert_same, tmp_path, capsys
):
    longer = [*short, "trainer.max_steps=20", "module.optimizer.lr=1e-4", f"resume={uninterrupted}"]
    assert server(tmp_path / "one", *longer, "hydra.run.dir=run").status == 0
    killed = server(tmp_path / "two", *longer, "hydra.run.dir=run", signal=signal.SIGKILL, at=["step", 17])
    assert killed.status == -signal.SIGKILL, killed.printed
    run = tmp_path / "two" / "run"
    plain = config_of(run) | {"resume": "auto"}
    assert find_start(plain, tmp_path, [run]) == Start(tmp_path)
    again = server(tmp_path / "two", *longer, "hydra.run.dir=run")
    assert again.status == 0, again.printed
    assert f"{run} goes on from {uninterrupted / 'checkpoints' / 'last.ckpt'}: continuing from step 16" in again.printed
    assert_same(run, tmp_path / "one" / "run")
    assert find_start(plain, tmp_path, [run]) == Start(tmp_path)
    assert "its checkpoints are of another training" in capsys.readouterr().out


@pytest.mark.slow
def test_a_longer_training_in_the_same_folder_is_repeated_if_it_was_stopped_at_once(server, short, copied, tmp_path):
    command = [*short, "trainer.max_steps=20", f"resume={copied}", f"hydra.run.dir={copied}"]
    no_last = "callbacks.last=null"  # no checkpoint at the start
    killed = server(tmp_path, *command, no_last, signal=signal.SIGKILL, at=["step", 5])
    assert killed.status == -signal.SIGKILL, killed.printed
    assert not list((copied / "checkpoints").glob("*.ckpt"))
    again = server(tmp_path, *command)
    assert again.status == 0, again.printed
    assert "resume: going on from step 4 of " in again.printed
    assert saved(copied)["global_step"] == 20


@pytest.mark.slow
def test_the_folder_of_the_run_itself_can_be_named(server, short, uninterrupted, copied, assert_same, tmp_path):
    named = f"hydra.run.dir={copied}"
    trained = server(tmp_path, *short, "trainer.max_steps=20", f"resume={copied}", named)
    assert trained.status == 0, trained.printed
    (aside,) = copied.glob("earlier_*")
    assert saved(aside)["global_step"] == 4
    assert saved(copied)["global_step"] == 20
    assert str(aside) in (copied / CONTINUED_FROM).read_text()
