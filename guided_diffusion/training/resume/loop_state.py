"""A record in each checkpoint of where the training was, and a fit loop that continues exactly from there.

Lightning has no public way to do either. This file uses two of its internals: the class of the fit loop, and the layout
of the loops' state in a checkpoint.
"""

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from guided_diffusion.training.lightning_internals import lightning_internals
from guided_diffusion.training.loggers.csv import CSVLogger

MEANWHILE = "go on with the version that began the training"

with lightning_internals(MEANWHILE):
    from pytorch_lightning.loops import _FitLoop


class ResumableFitLoop(_FitLoop):
    """A fit loop that calls ``on_train_end`` even if no step is left to do, unlike Lightning's own."""

    @classmethod
    def replace(cls, trainer: Trainer) -> None:
        """Give the trainer this loop, or raise ``RuntimeError`` if this version of Lightning has another one."""
        with lightning_internals(MEANWHILE):
            loop = cls(trainer, trainer.min_epochs, trainer.max_epochs)
            loop.epoch_loop = trainer.fit_loop.epoch_loop
            trainer.fit_loop = loop

    @property
    def skip(self) -> bool:
        return self.trainer.limit_train_batches == 0 or self.max_batches == 0


class Resumable(Callback):
    """A callback that records in every checkpoint exactly which step is done. It must be the first callback.

    Lightning's own record depends on the hook that saves; continuing from it loses validations, counts epochs twice
    and shifts the steps of the logs. Here there are two states: step k is done, or it is done except for its
    validation, which then runs from its beginning.
    """

    def __init__(self) -> None:
        self._validation_is_due = False
        self._rows_before_step: int | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        self._rows_before_step = _logged_rows(trainer)  # other callbacks log for the step that begins

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._rows_before_step = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_is_due = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_is_due = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            for logger in _csv_loggers(trainer):
                logger.save()
        rows, batches = self._rows_before_step, int(trainer.num_training_batches)
        checkpoint["metrics_rows"] = _logged_rows(trainer) if rows is None else rows
        with lightning_internals(MEANWHILE):
            loop = checkpoint["loops"]["fit_loop"]
            rewind_to_step(loop, checkpoint["global_step"], batches, self._validation_is_due)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Correct the paths of a run that was moved; Lightning would forget which of its checkpoints is the best."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint) and callback.state_key in checkpoint["callbacks"]:
                state = checkpoint["callbacks"][callback.state_key]
                new = _replace_folder(state, state["dirpath"], str(callback.dirpath))
                checkpoint["callbacks"][callback.state_key] = new


def rewind_to_step(loop: dict[str, Any], step: int, batches_per_epoch: int, validation_is_due: bool) -> None:
    """Change Lightning's record of its fit loop in place, so that ``step`` optimizer steps are done and nothing else.

    ``validation_is_due`` says whether the validation after the last of them is still to do.
    """
    epoch = loop["epoch_progress"]["current"]["ready"] - 1
    batches = loop["epoch_loop.batch_progress"]["current"]["completed"]
    if batches == batches_per_epoch and not validation_is_due:
        epoch, batches = epoch + 1, 0
        optimizer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        for progress in (loop["epoch_loop.scheduler_progress"], optimizer["step"], optimizer["zero_grad"]):
            progress["current"] = dict.fromkeys(progress["current"], 0)
    for scope in ("total", "current"):
        begun = {"ready": epoch + 1, "started": epoch + 1}
        loop["epoch_progress"][scope] = begun | {"processed": epoch, "completed": epoch}
    trained = loop["epoch_loop.batch_progress"]
    trained["current"] = dict.fromkeys(trained["current"], batches)
    trained["total"] = dict.fromkeys(trained["total"], trained["total"]["completed"])
    trained["is_last_batch"] = batches == batches_per_epoch
    validated = loop["epoch_loop.val_loop.batch_progress"]
    validated["current"] = dict.fromkeys(validated["current"], 0)
    begun = {"ready": 1, "started": 1} if validation_is_due else {}
    validated["total"] = dict.fromkeys(validated["total"], 0) | begun
    validated["is_last_batch"] = False
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step - validation_is_due
    if "combined_loader" in loop["state_dict"]:
        loop["state_dict"]["combined_loader"] = [{"batches": batches % batches_per_epoch}]


def _replace_folder(value: Any, old: str, new: str) -> Any:
    """Return a nested state with another folder in all its texts, keys included."""
    if isinstance(value, dict):
        return {_replace_folder(key, old, new): _replace_folder(child, old, new) for key, child in value.items()}
    return value.replace(old, new) if isinstance(value, str) else value


def _csv_loggers(trainer: Trainer) -> list[CSVLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]


def _logged_rows(trainer: Trainer) -> int:
    """Return the number of rows of ``metrics.csv``, which only the first process writes."""
    return sum(logger.rows for logger in _csv_loggers(trainer)[:1]) if trainer.is_global_zero else 0
