"""Stopping a training after ``trainer.max_time``, and the note that a training leaves if it stops before its end."""

from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from guided_diffusion.training.length import reached_end

STOPPED = "stopped.txt"
"""The file in a run's folder that says why and where the run stopped before its end."""

Duration = str | timedelta | dict[str, int] | None


def seconds_of(max_time: Duration) -> float | None:
    """Return ``trainer.max_time`` in seconds; ``None`` without one.

    Raises:
        ValueError: If it is not positive, or neither a ``timedelta``, its arguments nor ``days:hours:minutes:seconds``.
    """
    try:
        seconds = Timer(max_time).time_remaining()
    except (MisconfigurationException, TypeError) as error:
        raise ValueError(
            f"trainer.max_time must be days:hours:minutes:seconds, as 00:12:00:00, got {max_time}"
        ) from error
    if seconds is not None and seconds <= 0:
        raise ValueError(f"trainer.max_time must be positive, got {max_time}")
    return seconds


class EarlyEnd(Callback):
    """A callback that stops a training after a time, and writes ``stopped.txt`` if it stops before its end.

    The time counts from the first step of this process, so a resumed training has all of it again. Lightning's own
    ``Timer`` continues to count from the time in the checkpoint, and adds a validation that a training without a limit
    does not have.

    Args:
        folder: The folder of the run.
        max_time: The time after which no further step begins, as Lightning's trainer takes it; ``None`` for no limit.
    """

    def __init__(self, folder: str | Path, max_time: Duration = None) -> None:
        self.path = Path(folder) / STOPPED
        self.seconds = seconds_of(max_time)
        self._started = 0.0
        self._is_over = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Stop before this step if the time is over for the first process."""
        if self.seconds is not None:
            self._is_over = trainer.strategy.broadcast(monotonic() - self._started >= self.seconds)
        if self._is_over:
            trainer.should_stop = True
            raise StopIteration  # the end of the epoch for Lightning's loop

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and not reached_end(trainer):
            cause = "trainer.max_time" if self._is_over else "a callback"
            self.path.write_text(f"stopped by {cause} after step {trainer.global_step} of {trainer.max_steps}\n")
