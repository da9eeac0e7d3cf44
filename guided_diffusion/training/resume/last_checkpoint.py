"""The checkpoint to go on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from guided_diffusion.utils.validation import check_positive


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt`` every ``every_n_steps``, after the last step, and when the process is told to end.

    It is saved before the next step begins, so that a step is in it with its validation and its logs, or not
    at all; ``Resumable`` writes which. Lightning's ``ModelCheckpoint`` with an interval leaves out a last step
    that is no multiple of it.

    Args:
        dirpath: folder of the checkpoint.
        every_n_steps: optimizer steps between two savings.

    Raises:
        ValueError: unless ``every_n_steps`` is at least 1.
    """

    def __init__(self, dirpath: str, every_n_steps: int = 500) -> None:
        check_positive(every_n_steps=every_n_steps)
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._saved_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step
        if trainer.ckpt_path and Path(trainer.ckpt_path).resolve().parent != self.path.resolve().parent:
            self._save(trainer)  # of what was another run's

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self._save_once(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.should_stop or last_epoch or trainer.global_step == trainer.max_steps:
            self._save_once(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException) and not _is_amid_a_step(trainer):
            self._save_once(trainer)

    def _save_once(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        trainer.save_checkpoint(self.path)
        self._saved_step = trainer.global_step


def _is_amid_a_step(trainer: Trainer) -> bool:
    """Gradients are being accumulated, or the last step still waits for its validation."""
    unvalidated = trainer.validating and trainer.global_step == trainer.max_steps
    return unvalidated or trainer.fit_loop.epoch_loop._should_accumulate()
