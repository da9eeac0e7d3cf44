"""The number of steps of a training, given in steps or in epochs, and whether a training has reached its end."""

from typing import TypeGuard

from omegaconf import DictConfig
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason

from guided_diffusion.data import LabelledDataModule

UNKNOWN = -1
"""The number of steps in a config that gives epochs, until the data and the processes are known."""


def prefer_epochs(config: DictConfig) -> None:
    """Let ``trainer.max_epochs``, if it is set, replace ``trainer.max_steps`` in a config."""
    if has_epochs(config.trainer.get("max_epochs")):
        config.trainer.max_steps = UNKNOWN


def has_epochs(max_epochs: int | None) -> TypeGuard[int]:
    """Return whether the length of a training is given in epochs."""
    return max_epochs not in (None, UNKNOWN)


def count_steps(trainer: Trainer, data: LabelledDataModule, first_step: int = 0, first_epoch: int = 0) -> int:
    """Return the number of the last step of a training whose length is given in epochs.

    Args:
        trainer: The trainer, which knows the number of processes.
        data: The data, after ``setup("fit")``.
        first_step, first_epoch: The step and the epoch at which these settings begin; not 0 if a training with other
            settings is continued.
    """
    assert trainer.max_epochs is not None
    data.trainer = trainer  # each process has its own share of the samples
    batches = limited_batches(trainer, len(data.train_dataloader()))
    return first_step + (trainer.max_epochs - first_epoch) * (batches // trainer.accumulate_grad_batches)


def limited_batches(trainer: Trainer, batches: int) -> int:
    """Return how many of the batches of an epoch ``trainer.limit_train_batches``, a number or a share, leaves."""
    limit = trainer.limit_train_batches
    return int(batches * limit) if isinstance(limit, float) else min(batches, limit)


def set_number_of_steps(trainer: Trainer, config: DictConfig, steps: int) -> None:
    """Give the number of steps of all epochs to the trainer, and to the learning-rate schedule in the config.

    A ``val_check_interval`` that is longer than the training is reduced, so that there is a validation at the end.
    """
    trainer.fit_loop.epoch_loop.max_steps = steps
    if isinstance(trainer.val_check_interval, int):
        trainer.val_check_interval = min(trainer.val_check_interval, steps)
    config.trainer.max_steps = steps
    schedule = config.module.lr_scheduler
    for key, value in list(schedule.items()):
        if value == UNKNOWN and key != "last_epoch":
            schedule[key] = steps  # a resolved config no longer follows trainer.max_steps


def reached_end(trainer: Trainer) -> bool:
    """Return whether all steps or epochs are done, or the user's ``EarlyStopping`` has ended the training."""
    if trainer.global_step >= trainer.max_steps > 0:
        return True
    if has_epochs(trainer.max_epochs) and trainer.current_epoch >= trainer.max_epochs:
        return True
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    stoppers = [callback for callback in callbacks if isinstance(callback, EarlyStopping)]
    return any(stopper.stopping_reason is not EarlyStoppingReason.NOT_STOPPED for stopper in stoppers)
