"""Close the loggers at the end of a run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import singledispatch

from pytorch_lightning.loggers import Logger, WandbLogger


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
