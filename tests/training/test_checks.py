"""Refusals of settings with which a training could not run, never end, or learn nothing."""

import pytest
from pytorch_lightning import LightningModule
from torch import nn
from torch.optim import SGD

from guided_diffusion.training.checks import check_optimization, check_trainer


class Module(LightningModule):
    def __init__(self, optimizer):
        super().__init__()
        self.layer = nn.Linear(1, 1)
        self.optimizer = optimizer

    def configure_optimizers(self):
        return {"optimizer": self.optimizer(self.parameters())}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "trainer.max_steps must be at least 1, got 0"),
        ({"max_steps": -1}, "trainer.max_steps must be at least 1, got -1"),
        ({"accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches must be positive, got 0"),
        ({"log_every_n_steps": 0}, "trainer.log_every_n_steps must be positive, got 0"),
        ({"val_check_interval": -0.5}, "trainer.val_check_interval must be positive, got -0.5"),
        (
            {"val_check_interval": "00:00:01"},
            "trainer.val_check_interval must be a number of steps, .* with a time, .*",
        ),
        ({"gradient_clip_val": 0}, "trainer.gradient_clip_val must be positive, or null for no clipping, got 0"),
    ],
)
def test_trainer_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_trainer({"max_steps": 1} | settings)


def test_trainer_settings_in_range_are_accepted():
    check_trainer({"max_steps": 1, "val_check_interval": 0.5, "gradient_clip_val": None})


@pytest.mark.parametrize("lr", [0.0, float("inf"), float("nan")])
def test_a_learning_rate_that_teaches_nothing_is_refused(lr):
    with pytest.raises(ValueError, match=rf"module\.optimizer\.lr must be positive and finite, got {lr}"):
        check_optimization(Module(lambda parameters: SGD(parameters, lr=lr)))


def test_an_optimizer_that_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match=r"module\.optimizer or module\.lr_scheduler: Invalid learning rate: -1"):
        check_optimization(Module(lambda parameters: SGD(parameters, lr=-1)))
