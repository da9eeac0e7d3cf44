"""Close the loggers at the end of a run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pytorch_lightning.loggers import Logger

from guided_diffusion.evaluation.publish import dashboard


@contextmanager
def closing_loggers(loggers: Sequence[Logger]) -> Iterator[None]:
    """Close the loggers at the end, as failed where what is inside fails: else the jobs of a sweep merge in W&B."""
    status = 1
    try:
        yield
        status = 0
    finally:
        for logger in loggers:
            dashboard(logger).finish(status)
