"""Lightning's loop, for a training that was interrupted after its last step."""

from __future__ import annotations

from pytorch_lightning import Trainer
from pytorch_lightning.loops import _FitLoop


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
