"""Checks of the settings of trainer, optimizer and random times before anything is written."""

import math
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from guided_diffusion.losses import check_times
from guided_diffusion.training.length import has_epochs
from guided_diffusion.training.modules import NoisyTraining
from guided_diffusion.training.resume.early_end import seconds_of

POSITIVE = (
    "accumulate_grad_batches",
    "check_val_every_n_epoch",
    "limit_train_batches",
    "log_every_n_steps",
    "val_check_interval",
)
"""The settings that Lightning's trainer accepts as 0, with which it then divides by zero or trains nothing."""


def check_trainer(node: dict[str, Any]) -> None:
    """Raise ``ValueError`` for settings that Lightning accepts but then ignores, or with which it hangs or fails."""
    epochs = node.get("max_epochs")
    if has_epochs(epochs) and not epochs >= 1:
        raise ValueError(f"trainer.max_epochs must be at least 1, got {epochs}")
    if not has_epochs(epochs) and not node["max_steps"] >= 1:
        raise ValueError(f"trainer.max_steps must be at least 1, got {node['max_steps']}")
    if seconds_of(node.get("max_time")) and (node.get("min_steps") or node.get("min_epochs")):
        raise ValueError("trainer.max_time can't stop a training with trainer.min_steps or min_epochs: leave these out")
    for name in POSITIVE:
        if isinstance(value := node.get(name), int | float) and not value > 0:
            raise ValueError(f"trainer.{name} must be positive, got {value}")
    if not isinstance(value := node.get("val_check_interval"), int | float | None):
        raise ValueError(
            "trainer.val_check_interval must be a number of steps, or with trainer.check_val_every_n_epoch=1 a share "
            f"of an epoch such as 0.5, got {value}: after a time, a resumed training would validate at other steps"
        )
    if (value := node.get("gradient_clip_val")) is not None and not value > 0:
        raise ValueError(f"trainer.gradient_clip_val must be positive, or null for no clipping, got {value}")


def check_optimization(module: NoisyTraining, max_steps: int) -> Optimizer:
    """Return the optimizer.

    Raises:
        ValueError: If it or its schedule can't be built, its learning rate can't be used, or its schedule ends before
            the training.
    """
    try:
        optimizer, schedule = module.build_optimization(max_steps, max(max_steps, 1))
    except (ValueError, TypeError, ArithmeticError) as error:
        raise ValueError(f"module.optimizer or module.lr_scheduler: {error}") from error
    lr = optimizer.defaults["lr"]
    if not 0 < lr < math.inf:
        raise ValueError(f"module.optimizer.lr must be positive and finite, got {lr}")
    if isinstance(schedule, OneCycleLR) and schedule.total_steps < max_steps:
        raise ValueError(
            f"module.lr_scheduler.total_steps must be at least {max_steps}, the steps of the training, got "
            f"{schedule.total_steps}: leave it out, or raise it"
        )
    return optimizer


def check_time_sampling(module: NoisyTraining) -> None:
    """Raise ``ValueError`` if the random times of a training don't suit its schedule."""
    try:
        check_times(module.time_sampling, module.schedule)
    except ValueError as error:
        raise ValueError(f"time_sampling: {error}") from error
