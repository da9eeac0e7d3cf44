"""The callback that logs the learning rate."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor

from guided_diffusion.training.steps import begins_step


class LearningRate(LearningRateMonitor):
    """A ``LearningRateMonitor`` that logs once per optimizer step; Lightning's own logs at each accumulated batch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if begins_step(trainer, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
