"""Refusals of settings with which a training could not run, never end, or learn nothing."""

from contextlib import nullcontext
from functools import partial

import pytest
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR, LinearLR, OneCycleLR

from guided_diffusion.losses import LogNormalTimes
from guided_diffusion.schedules import Cosine
from guided_diffusion.training.checks import check_optimization, check_time_sampling, check_trainer
from guided_diffusion.training.modules import NoisyTraining


class Module(NoisyTraining):
    def __init__(self, optimizer, lr_scheduler=LinearLR):
        super().__init__(nn.Linear(1, 1), optimizer, lr_scheduler, 0, False, False)
        self.layer = nn.Linear(1, 1)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_steps": 0}, "trainer.max_steps must be at least 1, got 0"),
        ({"max_steps": -1}, "trainer.max_steps must be at least 1, got -1"),
        ({"max_epochs": 0}, "trainer.max_epochs must be at least 1, got 0"),
        ({"max_time": "3h"}, "trainer.max_time must be days:hours:minutes:seconds, as 00:12:00:00, got 3h"),
        ({"max_time": "00:00:00:00"}, "trainer.max_time must be positive, got 00:00:00:00"),
        (
            {"max_time": "00:01:00:00", "min_steps": 9},
            "trainer.max_time can't stop a training with .*: leave these out",
        ),
        ({"accumulate_grad_batches": 0}, "trainer.accumulate_grad_batches must be positive, got 0"),
        ({"check_val_every_n_epoch": 0}, "trainer.check_val_every_n_epoch must be positive, got 0"),
        ({"limit_train_batches": 0.0}, "trainer.limit_train_batches must be positive, got 0.0"),
        ({"log_every_n_steps": 0}, "trainer.log_every_n_steps must be positive, got 0"),
        ({"val_check_interval": -0.5}, "trainer.val_check_interval must be positive, got -0.5"),
        (
            {"val_check_interval": "00:00:01"},
            "trainer.val_check_interval must be a number of steps, .*: after a time, .*",
        ),
        ({"gradient_clip_val": 0}, "trainer.gradient_clip_val must be positive, or null for no clipping, got 0"),
    ],
)
def test_trainer_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        check_trainer({"max_steps": 1} | settings)


def test_trainer_settings_in_range_are_accepted():
    check_trainer({"max_steps": 1, "val_check_interval": 0.5, "gradient_clip_val": None})
    check_trainer({"max_steps": -1, "max_epochs": 3, "max_time": "00:12:00:00"})


@pytest.mark.parametrize("lr", [0.0, float("inf"), float("nan")])
def test_a_learning_rate_that_teaches_nothing_is_refused(lr):
    with pytest.raises(ValueError, match=rf"module\.optimizer\.lr must be positive and finite, got {lr}"):
        check_optimization(Module(lambda parameters: SGD(parameters, lr=lr)), 4)


@pytest.mark.parametrize("max_steps", [1, 10, -1])
def test_a_schedule_over_any_number_of_steps_is_accepted(max_steps):
    cycle = partial(OneCycleLR, max_lr=1.0, total_steps=max_steps, pct_start=0.1)
    check_optimization(Module(partial(SGD, lr=1.0, momentum=0.9), cycle), max_steps)


@pytest.mark.parametrize(("total_steps", "fits"), [(9, False), (10, True), (99, True)])
def test_a_schedule_that_ends_before_the_training_is_refused(total_steps, fits):
    cycle = partial(OneCycleLR, max_lr=1.0, total_steps=total_steps)
    message = r"module\.lr_scheduler\.total_steps must be at least 10, the steps of the training, got 9"
    with nullcontext() if fits else pytest.raises(ValueError, match=message):
        check_optimization(Module(partial(SGD, lr=1.0, momentum=0.9), cycle), 10)


def test_a_schedule_that_divides_by_zero_is_refused():
    with pytest.raises(ValueError, match=r"module\.optimizer or module\.lr_scheduler: division by zero"):
        check_optimization(Module(partial(SGD, lr=1.0), partial(LambdaLR, lr_lambda=lambda step: 1 / step)), 4)


def test_an_optimizer_that_cannot_be_built_is_refused():
    with pytest.raises(ValueError, match=r"module\.optimizer or module\.lr_scheduler: Invalid learning rate: -1"):
        check_optimization(Module(lambda parameters: SGD(parameters, lr=-1)), 4)


def test_times_that_do_not_suit_the_schedule_are_refused():
    module = Module(partial(SGD, lr=1.0))
    module.schedule = Cosine()
    check_time_sampling(module)
    module.time_sampling = LogNormalTimes(20.0)
    with pytest.raises(ValueError, match=r"^time_sampling: .* with mean 20 and std 1.1: lower the mean$"):
        check_time_sampling(module)
