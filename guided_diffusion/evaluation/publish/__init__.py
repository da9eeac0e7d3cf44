"""What is shown where: every kind of logger on an equal footing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from guided_diffusion.evaluation.publish.base import Dashboard
from guided_diffusion.evaluation.publish.csv import PlainDashboard
from guided_diffusion.evaluation.publish.tensorboard import TensorBoardDashboard
from guided_diffusion.evaluation.publish.wandb import WandbDashboard
from guided_diffusion.evaluation.results import Results

__all__ = ["DASHBOARDS", "Dashboard", "dashboard", "log_results"]


DASHBOARDS: dict[type, type[Dashboard]] = {
    Logger: PlainDashboard,
    TensorBoardLogger: TensorBoardDashboard,
    WandbLogger: WandbDashboard,
}
"""By the class of the logger. A logger of one's own is a row more, or a plain one."""


def dashboard(logger: Logger) -> Dashboard:
    """The dashboard of the nearest class of this logger."""
    return next(DASHBOARDS[kind] for kind in type(logger).__mro__ if kind in DASHBOARDS)(logger)


def log_results(loggers: Sequence[Logger], results: Results, folder: Path) -> None:
    """Show an evaluation, whose files lie in ``folder``, in every logger."""
    for logger in loggers:
        dashboard(logger).results(results, folder)
