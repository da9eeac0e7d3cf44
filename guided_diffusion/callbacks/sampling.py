"""What callbacks that sample have in common: when they do, and with which weights."""

from __future__ import annotations

from abc import abstractmethod
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from guided_diffusion.callbacks.ema import evaluation_weights


class SamplingCallback(Callback):
    """Samples every ``every_n_steps`` and when training has ended, on one process, with the averaged weights.

    Training is not affected: sampling draws from generators of its own.

    Args:
        output_dir: of the run.
        every_n_steps: optimizer steps between two samplings; 0 for the end alone.

    Raises:
        ValueError: if ``every_n_steps`` is negative.
    """

    def __init__(self, output_dir: str, every_n_steps: int) -> None:
        if every_n_steps < 0:
            raise ValueError(f"every_n_steps must be at least 0, got {every_n_steps}")
        self.output_dir = Path(output_dir)
        self.every_n_steps = every_n_steps
        self._sampled_step = 0

    @abstractmethod
    def sample(self, trainer: Trainer, module: Any) -> None:
        """Sample from ``module.denoiser``, which has the weights to judge, and write what comes of it."""

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if due and trainer.global_step not in (self._sampled_step, trainer.max_steps):
            self._run(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._run(trainer, pl_module)

    def _run(self, trainer: Trainer, module: LightningModule) -> None:
        self._sampled_step = trainer.global_step
        if trainer.is_global_zero:
            with evaluation_weights(trainer, module), trainer.precision_plugin.forward_context():
                self.sample(trainer, module)
        trainer.strategy.barrier()
