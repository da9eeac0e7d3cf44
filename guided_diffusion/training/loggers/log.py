"""Logging from a training to every logger what Lightning has no common call for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning import Trainer

from guided_diffusion.evaluation.publish import dashboard


def log_image(trainer: Trainer, key: str, path: Path) -> None:
    """A picture, to the loggers that can show one; it lies in the run's folder in any case."""
    for logger in trainer.loggers:
        dashboard(logger).picture(key, path, trainer.global_step)


def log_curve(trainer: Trainer, key: str, scales: Sequence[float], values: Sequence[float]) -> None:
    """A quantity against the guidance scale.

    W&B gets points on the axis ``guidance/scale``; other loggers get one metric for each scale.
    """
    points = dict(zip(scales, values, strict=True))
    for logger in trainer.loggers:
        dashboard(logger).curve(key, points, trainer.global_step)
