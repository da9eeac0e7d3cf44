"""The progress bar of a training, which counts steps instead of epochs."""

import sys
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from guided_diffusion.training.steps import ends_step
from guided_diffusion.utils.progress import progress_bar
from guided_diffusion.utils.validation import check_positive


class StepProgress(ProgressBar):
    """One progress bar for the whole training, with the loss and the images per second.

    It is refreshed every ``every_n_steps``; ``ValueError`` if that is below 1. Lightning's own bars restart with each
    epoch, which says little if an epoch takes a second.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        check_positive(every_n_steps=every_n_steps)
        super().__init__()
        self.every_n_steps = every_n_steps
        self._enabled = True
        self._bar: tqdm | None = None

    def disable(self) -> None:
        self._enabled = False

    def enable(self) -> None:
        self._enabled = True

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._bar = progress_bar(
            desc="training",
            total=trainer.max_steps if trainer.max_steps > 0 else None,
            unit="step",
            initial=trainer.global_step,
            disable=not self._enabled,
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert self._bar is not None
        due = trainer.global_step % self.every_n_steps == 0 or trainer.global_step == trainer.max_steps
        if due and ends_step(trainer, batch_idx):
            metrics = self.get_metrics(trainer, pl_module)
            self._bar.set_postfix({key.split("/")[-1]: value for key, value in metrics.items()}, refresh=False)
            self._bar.update(trainer.global_step - self._bar.n)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Close the bar, so that the error message begins on a line of its own."""
        self.on_train_end(trainer, pl_module)

    def print(self, *args: Any, sep: str = " ", **kwargs: Any) -> None:
        tqdm.write(sep.join(map(str, args)), file=sys.stdout)
