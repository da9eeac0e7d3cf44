"""Lightning's loop, for a training that was interrupted after its last step."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from pytorch_lightning.loops import _FitLoop

from guided_diffusion.training.loggers.csv import CSVLogger


class ResumableFitLoop(_FitLoop):
    """Ends a training that has no step left to do as every other: Lightning leaves out ``on_train_end``."""

    @classmethod
    def replace(cls, trainer: Trainer) -> None:
        """Give the trainer this loop instead of its own."""
        loop = cls(trainer, trainer.min_epochs, trainer.max_epochs)
        loop.epoch_loop = trainer.fit_loop.epoch_loop
        trainer.fit_loop = loop

    @property
    def skip(self) -> bool:
        return self.trainer.limit_train_batches == 0 or self.max_batches == 0


class Resumable(Callback):
    """Writes into every checkpoint where the training was, between two steps; to be the first callback.

    Lightning's own record depends on the hook that saves, and what it does with it loses validations, counts
    epochs twice and shifts the steps of the logs. Here there are two states: step k is done, or it is done but for
    its validation, which is then run from its beginning.
    """

    def __init__(self) -> None:
        self._validation_is_due = False
        self._rows: int | None = None

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        trainer.fit_loop.epoch_loop._batches_that_stepped = trainer.global_step
        self._rows = _rows(trainer)  # other callbacks log for the step that begins

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self._rows = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_is_due = True

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validation_is_due = False

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        if trainer.is_global_zero:
            for logger in _tables(trainer):
                logger.save()
        checkpoint["metrics_rows"] = _rows(trainer) if self._rows is None else self._rows
        step = checkpoint["global_step"]
        rewind_to_step(
            checkpoint["loops"]["fit_loop"], step, int(trainer.num_training_batches), self._validation_is_due
        )

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """A run may have moved: Lightning would then forget which of its checkpoints is the best."""
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint) and callback.state_key in checkpoint["callbacks"]:
                state = checkpoint["callbacks"][callback.state_key]
                checkpoint["callbacks"][callback.state_key] = _moved(state, state["dirpath"], str(callback.dirpath))


def _moved(value: Any, old: str, new: str) -> Any:
    if isinstance(value, dict):
        return {_moved(key, old, new): _moved(child, old, new) for key, child in value.items()}
    return value.replace(old, new) if isinstance(value, str) else value


def rewind_to_step(loop: dict[str, Any], step: int, batches_per_epoch: int, validation_is_due: bool) -> None:
    """Change Lightning's record of its loops in place: ``step`` is done, and nothing of the next one.

    Args:
        loop: the state of the fit loop.
        step: optimizer steps done.
        batches_per_epoch: of training.
        validation_is_due: the validation after the step is not done.
    """
    epoch = loop["epoch_progress"]["current"]["ready"] - 1
    batches = loop["epoch_loop.batch_progress"]["current"]["completed"]
    if batches == batches_per_epoch and not validation_is_due:
        epoch, batches = epoch + 1, 0
        for progress in _progress_within_epoch(loop):
            progress["current"] = dict.fromkeys(progress["current"], 0)
    for scope in ("total", "current"):
        loop["epoch_progress"][scope] = {"ready": epoch + 1, "started": epoch + 1, "processed": epoch} | {
            "completed": epoch
        }
    done = loop["epoch_loop.batch_progress"]
    done["current"] = dict.fromkeys(done["current"], batches)
    done["total"] = dict.fromkeys(done["total"], done["total"]["completed"])
    done["is_last_batch"] = batches == batches_per_epoch
    amid = {"ready": 1, "started": 1} if validation_is_due else {}
    validated = loop["epoch_loop.val_loop.batch_progress"]
    validated["current"] = dict.fromkeys(validated["current"], 0)
    validated["total"] = dict.fromkeys(validated["total"], 0) | amid
    validated["is_last_batch"] = False
    loop["epoch_loop.state_dict"]["_batches_that_stepped"] = step - validation_is_due
    if "combined_loader" in loop["state_dict"]:
        loop["state_dict"]["combined_loader"] = [{"batches": batches % batches_per_epoch}]


def _progress_within_epoch(loop: dict[str, Any]) -> list[dict[str, Any]]:
    optimizer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
    return [loop["epoch_loop.scheduler_progress"], optimizer["step"], optimizer["zero_grad"]]


def _tables(trainer: Trainer) -> list[CSVLogger]:
    return [logger for logger in trainer.loggers if isinstance(logger, CSVLogger)]


def _rows(trainer: Trainer) -> int:
    """Of the table; only the first process has one."""
    return sum(logger.rows for logger in _tables(trainer)[:1]) if trainer.is_global_zero else 0
