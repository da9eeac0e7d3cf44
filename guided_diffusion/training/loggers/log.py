"""Show images and curves of a training in its loggers, and close them; Lightning has no common call for these."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import singledispatch
from pathlib import Path

import numpy as np
from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from guided_diffusion.training.lightning_internals import lightning_internals
from guided_diffusion.training.loggers.wandb import OneRunLogger
from guided_diffusion.utils.guidance_scale import log_against_scale, metrics_by_scale


def log_image(trainer: Trainer, key: str, path: Path) -> None:
    """Show the image of a file in every logger that can show one."""
    for logger in trainer.loggers:
        show_image(logger, key, path, metrics_step(trainer))


def log_curve(trainer: Trainer, key: str, scales: Sequence[float], values: Sequence[float]) -> None:
    """Show a quantity against the guidance scale in every logger.

    W&B gets points on the axis ``guidance/scale``; other loggers get one metric for each scale.
    """
    points = dict(zip(scales, values, strict=True))
    for logger in trainer.loggers:
        show_curve(logger, key, points, trainer)


def metrics_step(trainer: Trainer) -> int:
    """Return the step at which Lightning logs metrics now: 0 during the first step and until the second begins.

    Everything that is logged in a step has this number, so that a resumed training knows what it repeats.
    """
    with lightning_internals("leave out logger=wandb and logger=tensorboard"):
        return trainer.fit_loop.epoch_loop._batches_that_stepped


@singledispatch
def show_image(logger: Logger, key: str, path: Path, step: int) -> None:
    """Show the image of a file in a logger; the default does nothing, since the file stays in the run's folder."""


@show_image.register(TensorBoardLogger)
def _show_image_in_tensorboard(logger: TensorBoardLogger, key: str, path: Path, step: int) -> None:
    logger.experiment.add_image(key, np.asarray(Image.open(path).convert("RGB")), step, dataformats="HWC")


@show_image.register(WandbLogger)
def _show_image_in_wandb(logger: WandbLogger, key: str, path: Path, step: int) -> None:
    logger.log_image(key, [str(path)], step)


@singledispatch
def show_curve(logger: Logger, key: str, points: Mapping[float, float], trainer: Trainer) -> None:
    """Show values by guidance scale in a logger; the default logs one metric for each scale."""
    logger.log_metrics(metrics_by_scale(key, points), trainer.global_step)


@show_curve.register(TensorBoardLogger)
def _show_curve_in_tensorboard(
    logger: TensorBoardLogger, key: str, points: Mapping[float, float], trainer: Trainer
) -> None:
    logger.log_metrics(metrics_by_scale(key, points), metrics_step(trainer))


@show_curve.register(OneRunLogger)
def _show_curve_once_in_wandb(logger: OneRunLogger, key: str, points: Mapping[float, float], trainer: Trainer) -> None:
    step = metrics_step(trainer)
    for scale, value in points.items():
        if logger.is_first(step, metrics_by_scale(key, {scale: value})):
            log_against_scale(logger.experiment, scale, {key: value})


@show_curve.register(WandbLogger)
def _show_curve_in_wandb(logger: WandbLogger, key: str, points: Mapping[float, float], trainer: Trainer) -> None:
    for scale, value in points.items():
        log_against_scale(logger.experiment, scale, {key: value})


@contextmanager
def closing_loggers(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close the loggers when the block ends, and mark the run as failed if it raises.

    Without this, W&B would log the next job of a sweep to the same run.
    """
    status = 1
    try:
        yield
        status = 0
    finally:
        for logger in loggers:
            close_logger(logger, status)


@singledispatch
def close_logger(logger: Logger, status: int) -> None:
    """Close a logger; ``status`` is 0 if the run succeeded."""
    logger.finalize("failed" if status else "success")


@close_logger.register(WandbLogger)
def _close_wandb(logger: WandbLogger, status: int) -> None:
    logger.experiment.finish(exit_code=status)
