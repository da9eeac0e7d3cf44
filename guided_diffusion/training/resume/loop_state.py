"""A record in each checkpoint of where the training was, and a fit loop that continues exactly from there.

Lightning has no public way to do either. This file uses two of its internals: the class of the fit loop, and the layout
of the loops' state in a checkpoint.
"""

import math
from typing import Any, cast

from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from guided_diffusion.training.lightning_internals import lightning_internals
from guided_diffusion.training.loggers.csv import CSVLogger
from guided_diffusion.training.steps import begins_step, ends_step

MEANWHILE = "go on with the version that began the training"

with lightning_internals(MEANWHILE):
    from pytorch_lightning.loops import _FitLoop


class ResumableFitLoop(_FitLoop):
    """A fit loop that calls ``on_train_end`` even if no step is left to do, and in which all steps are whole.

    With ``accumulate_grad_batches``, Lightning's own loop ends an epoch with a smaller step from the batches that are
    left over, and measures ``val_check_interval`` in batches. This one leaves those batches out, as a loader drops the
    last samples of an epoch, and measures it in optimizer steps.
    """

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

    def setup_data(self) -> None:
        before, accumulated = self._combined_loader, self.trainer.accumulate_grad_batches
        super().setup_data()
        is_new = self._combined_loader is not before and self.max_batches < math.inf
        if accumulated > 1 and is_new:
            self._use_whole_steps(accumulated, self._combined_loader)

    def _use_whole_steps(self, accumulated: int, loader: Any) -> None:
        """Limit an epoch to whole steps, and count the steps, instead of the batches, between validations."""
        steps = int(self.max_batches) // accumulated
        check_steps_per_epoch(self.trainer, int(self.max_batches))
        self.max_batches = steps * accumulated
        loader.limits = self.max_batches
        iter(cast(Any, self._data_fetcher))  # the iterator that was made has the old limit; no batch is loaded yet
        interval = self.trainer.val_check_interval
        between = interval if isinstance(interval, int) else max(1, int(steps * interval))
        self.trainer.val_check_batch = between * accumulated


def check_steps_per_epoch(trainer: Trainer, batches: int) -> None:
    """Raise ``ValueError`` if an epoch with this number of batches is too short for an optimizer step or validation."""
    accumulated, interval = trainer.accumulate_grad_batches, trainer.val_check_interval
    steps = batches // accumulated
    if steps < 1:
        limit = trainer.limit_train_batches
        takes_all = isinstance(limit, float) and limit == 1  # as a whole number, 1 is one batch
        or_limit = "" if takes_all else ", or raise trainer.limit_train_batches"
        raise ValueError(
            f"trainer.accumulate_grad_batches is {accumulated}, and an epoch has fewer batches ({batches}): lower it, "
            f"or lower data.batch_size{or_limit}"
        )
    if trainer.check_val_every_n_epoch is not None and isinstance(interval, int) and interval > steps:
        raise ValueError(
            f"trainer.val_check_interval is {interval}, and an epoch has {steps} steps: lower it, or count steps over "
            "epochs with trainer.check_val_every_n_epoch=null"
        )


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
        if begins_step(trainer, batch_idx):
            self._rows_before_step = _logged_rows(trainer)  # other callbacks log for the step that begins

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if ends_step(trainer, batch_idx):
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
            undo_part_of_step(loop, checkpoint["global_step"], trainer.accumulate_grad_batches)
            rewind_to_step(loop, checkpoint["global_step"], batches, self._validation_is_due)

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Correct the paths of a run that was moved; Lightning would forget which of its checkpoints is the best.

        In a checkpoint of an earlier version, some batches of an unfinished step may be done; they are done again.
        """
        saved = checkpoint["guided_diffusion"]["config"]["trainer"]
        accumulated = saved.get("accumulate_grad_batches", 1)
        undo_part_of_step(checkpoint["loops"]["fit_loop"], checkpoint["global_step"], accumulated)
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, ModelCheckpoint) and callback.state_key in checkpoint["callbacks"]:
                state = checkpoint["callbacks"][callback.state_key]
                new = _replace_folder(state, state["dirpath"], str(callback.dirpath))
                checkpoint["callbacks"][callback.state_key] = new


def undo_part_of_step(loop: dict[str, Any], step: int, accumulated: int) -> None:
    """Change Lightning's record of its fit loop in place, so that no batch of the step after ``step`` is done.

    A checkpoint does not hold the gradients of these batches. Done again, they have the same random numbers, which
    follow from their place in the epoch.
    """
    trained = loop["epoch_loop.batch_progress"]
    done = trained["current"]["completed"]
    trained["total"] = dict.fromkeys(trained["total"], step * accumulated)
    if done % accumulated:
        batches = done - done % accumulated
        trained["current"] = dict.fromkeys(trained["current"], batches)
        optimizer = loop["epoch_loop.automatic_optimization.optim_progress"]["optimizer"]
        for scope, count in optimizer["step"].items():  # the gradients were set to zero once more
            optimizer["zero_grad"][scope] = dict.fromkeys(optimizer["zero_grad"][scope], count["completed"])
        if "combined_loader" in loop["state_dict"]:
            loop["state_dict"]["combined_loader"] = [{"batches": batches}]


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
