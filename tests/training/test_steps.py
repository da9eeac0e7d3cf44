"""Optimizer steps that accumulate the gradients of several batches."""

import csv

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.callbacks import GradientAccumulationScheduler

from guided_diffusion.cli.train import train
from guided_diffusion.training.trainer import build_trainer


class Gradients(Callback):
    """Notes the gradient of every step, and the mean of the gradients of its batches alone."""

    def __init__(self):
        self.batches, self.accumulated, self.expected = [], [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append((batch, batch_idx))

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        parameters = list(pl_module.parameters())
        self.accumulated.append(torch.cat([one.grad.flatten() for one in parameters]))
        alone = [torch.autograd.grad(pl_module.training_step(*batch), parameters) for batch in self.batches]
        self.expected.append(torch.stack([torch.cat([one.flatten() for one in each]) for each in alone]).mean(0))
        self.batches.clear()


@pytest.mark.parametrize("k", [*(pytest.param(k, marks=pytest.mark.slow) for k in (1, 2)), 3])
def test_the_gradient_of_a_step_is_the_mean_of_those_of_its_batches(k, fit):
    gradients = Gradients()
    fit(f"trainer.accumulate_grad_batches={k}", "trainer.max_steps=2", callbacks=[gradients])
    assert len(gradients.accumulated) == 2
    torch.testing.assert_close(gradients.accumulated, gradients.expected, rtol=1e-4, atol=1e-6)


class Losses(Callback):
    """Notes the loss of every batch."""

    def __init__(self):
        self.losses = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(outputs["loss"].item() * trainer.accumulate_grad_batches)  # Lightning has divided it


@pytest.fixture
def accumulating(compose, tiny, tmp_path):
    """``accumulating(*overrides)`` is the config of a training on epochs of five batches, two in each step."""
    plain = [override for override in tiny if not override.startswith("callbacks.")]
    size = ("data.num_train=112", "trainer.accumulate_grad_batches=2")
    return lambda *overrides: compose(*plain, "callbacks=minimal", *size, *overrides, output_dir=tmp_path / "run")


@pytest.mark.slow
def test_intervals_count_optimizer_steps_and_a_step_never_spans_two_epochs(accumulating):
    rate = "+callbacks.learning_rate._target_=guided_diffusion.training.callbacks.LearningRate"
    run = train(accumulating(rate, "callbacks.last.every_n_steps=3"))
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))

    def logged(name, key="step"):
        return [int(row[key]) for row in rows if row[name]]

    assert logged("train/loss") == [0, 1, 2, 3]
    assert logged("train/loss", "epoch") == [0, 0, 1, 1]
    assert logged("train/learning_rate") == [0, 1, 2, 3]
    assert logged("val/loss") == [1, 3]
    assert torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 4


def test_the_logged_loss_is_the_mean_over_the_batches_of_the_step(fit):
    losses = Losses()
    trainer, _ = fit("trainer.accumulate_grad_batches=3", "trainer.max_steps=2", callbacks=[losses])
    assert len(losses.losses) == 6
    assert trainer.logged_metrics["train/loss"].item() == pytest.approx(sum(losses.losses[3:]) / 3)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.accumulate_grad_batches=6"], r"is 6, and an epoch has fewer batches \(5\): lower it"),
        (
            ["trainer.check_val_every_n_epoch=1", "trainer.val_check_interval=3"],
            "trainer.val_check_interval is 3, and an epoch has 2 steps",
        ),
    ],
)
def test_an_epoch_too_short_for_a_step_or_a_validation_is_refused_before_anything_is_written(
    overrides, message, accumulating, tmp_path
):
    with pytest.raises(ValueError, match=message):
        train(accumulating(*overrides))
    assert not any(tmp_path.iterdir())


def test_a_schedule_of_accumulation_is_refused(compose):
    with pytest.raises(ValueError, match=r"use trainer\.accumulate_grad_batches"):
        build_trainer(compose().trainer, [GradientAccumulationScheduler({0: 2})])
