"""What is shown where: every kind of logger on an equal footing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from guided_diffusion.dashboards.base import Dashboard
from guided_diffusion.dashboards.plain import PlainDashboard
from guided_diffusion.dashboards.tensorboard import TensorBoardDashboard
from guided_diffusion.dashboards.wandb import WandbDashboard
from guided_diffusion.results import Results

__all__ = ["DASHBOARDS", "Dashboard", "dashboard", "finishing", "log_results"]

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


@contextmanager
def finishing(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close the loggers at the end, as failed where what is inside fails: else the jobs of a sweep merge in W&B."""
    status = 1
    try:
        yield
        status = 0
    finally:
        for logger in loggers:
            dashboard(logger).finish(status)
