"""The training speed in images per second."""

from time import perf_counter
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from guided_diffusion.data import Batch
from guided_diffusion.training.steps import ends_step
from guided_diffusion.utils.validation import check_positive


class ImagesPerSecond(Callback):
    """A callback that logs ``train/images_per_second`` of all devices together, averaged over ``every_n_steps``.

    Only the steps count, not loading or validation; ``ValueError`` if ``every_n_steps`` is below 1. Lightning's
    ``ThroughputMonitor`` includes loading, has fixed names that the progress bar can't show, and warns about FLOPs.
    """

    def __init__(self, every_n_steps: int = 20) -> None:
        check_positive(every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self._seconds, self._images, self._start = 0.0, 0, 0.0

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Batch, batch_idx: int) -> None:
        self._start = perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Batch, batch_idx: int
    ) -> None:
        self._seconds += perf_counter() - self._start
        self._images += len(batch.labels) * trainer.world_size
        steps = (batch_idx + 1) // trainer.accumulate_grad_batches
        if trainer.is_last_batch or (ends_step(trainer, batch_idx) and steps % self.every_n_steps == 0):
            pl_module.log("train/images_per_second", self._images / self._seconds, prog_bar=True)
            self._seconds, self._images = 0.0, 0
