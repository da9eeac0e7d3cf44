"""Logging to every logger of a run what Lightning has no common call for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning import Trainer
from pytorch_lightning.loggers import WandbLogger


def log_image(trainer: Trainer, key: str, path: Path) -> None:
    """A picture, to the loggers that can show one; it lies in the run's folder in any case."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(key, [str(path)])


def log_curve(trainer: Trainer, key: str, scales: Sequence[float], values: Sequence[float]) -> None:
    """A quantity against the guidance scale.

    W&B gets points on the axis ``guidance/scale``; other loggers get one metric for each scale.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            for scale, value in zip(scales, values, strict=True):
                logger.experiment.log({"guidance/scale": scale, key: value})
        else:
            metrics = {f"{key}_w{scale:g}": value for scale, value in zip(scales, values, strict=True)}
            logger.log_metrics(metrics, step=trainer.global_step)
