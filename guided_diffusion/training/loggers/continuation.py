"""Beginning or continuing a training's log in each logger, so that an interrupted training logs each step once."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import singledispatch
from typing import Any

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger
from pytorch_lightning.utilities import rank_zero_only

from guided_diffusion.training.loggers.csv import CSVLogger
from guided_diffusion.training.loggers.wandb import OneRunLogger


@dataclass(frozen=True)
class Continuation:
    """The point from which the loggers of a training begin or continue."""

    is_new: bool = True
    """Whether the training begins anew, so that what an earlier one logged in its folder is not its own."""
    step: int = 0
    """The number of steps that are done."""
    rows: int = 0
    """The number of rows of ``metrics.csv`` that were logged before."""


def begin_logging(trainer: Trainer, settings: Mapping[str, Any], start: Continuation) -> None:
    """Begin or continue the log in every logger of the trainer, and log the settings of the training."""
    for logger in trainer.loggers:
        begin(logger, settings, start)


@singledispatch
def begin(logger: Logger, settings: Mapping[str, Any], start: Continuation) -> None:
    """Begin or continue the log in a logger; the default logs the settings."""
    logger.log_hyperparams(dict(settings))


@begin.register(CSVLogger)
def _begin_table(logger: CSVLogger, settings: Mapping[str, Any], start: Continuation) -> None:
    """Keep the rows up to the checkpoint, and log the settings."""
    logger.keep(start.rows)
    logger.log_hyperparams(dict(settings))


@begin.register(TensorBoardLogger)
def _begin_in_tensorboard(logger: TensorBoardLogger, settings: Mapping[str, Any], start: Continuation) -> None:
    """Hide what was logged after the checkpoint, with the mark that ``SummaryWriter(purge_step=...)`` writes."""
    _hide_later_steps(logger, 0 if start.is_new else start.step)
    if start.is_new:
        logger.log_hyperparams(dict(settings))


@rank_zero_only
def _hide_later_steps(logger: TensorBoardLogger, step: int) -> None:
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    mark = Event(step=step, session_log=SessionLog(status=SessionLog.START))
    logger.experiment.file_writer.add_event(mark)


@begin.register(OneRunLogger)
def _begin_in_wandb(logger: OneRunLogger, settings: Mapping[str, Any], start: Continuation) -> None:
    """Start a W&B run, or continue that of the training under the same id, and log the settings."""
    logger.begin(start.is_new)
    logger.log_hyperparams(dict(settings))
