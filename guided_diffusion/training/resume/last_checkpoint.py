"""The callback that saves ``last.ckpt``, the checkpoint from which an interrupted training continues."""

from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.utilities.exceptions import SIGTERMException

from guided_diffusion.utils.validation import check_positive


class LastCheckpoint(Checkpoint):
    """A callback that saves ``last.ckpt`` every ``every_n_steps``, after the last step, and when told to stop.

    It saves before the next step begins, so that a checkpoint has all of a step, with its validation and its logs, or
    nothing of it; ``Resumable`` records which. Lightning's ``ModelCheckpoint`` with an interval leaves out a last step
    that is no multiple of it.

    Raises:
        ValueError: If ``every_n_steps`` is below 1.
    """

    def __init__(self, dirpath: str, every_n_steps: int = 500) -> None:
        check_positive(every_n_steps=every_n_steps)
        self.path = Path(dirpath) / "last.ckpt"
        self.every_n_steps = every_n_steps
        self._saved_step = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._saved_step = trainer.global_step
        if trainer.ckpt_path and Path(trainer.ckpt_path).resolve().parent != self.path.resolve().parent:
            self._save(trainer)  # this run starts from another run's checkpoint, and needs one of its own

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if trainer.global_step % self.every_n_steps == 0:
            self._save_if_new(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        last_epoch = trainer.current_epoch + 1 == trainer.max_epochs
        if trainer.should_stop or last_epoch or trainer.global_step == trainer.max_steps:
            self._save_if_new(trainer)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if isinstance(exception, SIGTERMException) and not _validation_is_left(trainer):
            self._save_if_new(trainer)

    def _save_if_new(self, trainer: Trainer) -> None:
        if trainer.global_step != self._saved_step:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved_step = trainer.global_step


def _validation_is_left(trainer: Trainer) -> bool:
    """Return whether the validation after the last step is not done."""
    return trainer.validating and trainer.global_step == trainer.max_steps
