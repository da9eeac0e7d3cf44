"""The learning rate in the loggers."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import LearningRateMonitor

from guided_diffusion.training.steps import begins_step


class LearningRate(LearningRateMonitor):
    """Lightning's ``LearningRateMonitor``, which logs once per optimizer step and not once per accumulated batch."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        if begins_step(trainer, batch_idx):
            super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
