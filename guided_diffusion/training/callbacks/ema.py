"""The exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


@dataclass(frozen=True)
class WarmedUpDecay:
    """``average <- d average + (1 - d) weights`` with ``d = min(decay, (1 + n) / (10 + n))`` at update n.

    The warm-up makes the average useful in short runs as well, in which a constant 0.999 would still
    remember the initial weights.
    """

    decay: float

    @torch.no_grad()
    def __call__(self, average: Sequence[Tensor], weights: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        n = int(num_averaged)
        rate = 1 - min(self.decay, (1 + n) / (10 + n))
        torch._foreach_lerp_(list(average), list(weights), rate)


class EMA(WeightAveraging):
    """Lightning's ``WeightAveraging`` with an exponential average that warms up and can be sent to other processes.

    Validation and checkpoints use the average; a checkpoint holds the raw weights as well, and training
    goes on with those.

    Args:
        decay: of the average, in [0, 1); 0 is no average.

    Raises:
        ValueError: for another ``decay``.
    """

    def __init__(self, decay: float = 0.999) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        super().__init__(multi_avg_fn=WarmedUpDecay(decay))
        self._validating = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._validating = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._validating = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Validation that is cut off leaves the average in the module; a checkpoint may be saved after this."""
        if self._validating:
            self._swap_models(pl_module)
            self._validating = False

    @contextmanager
    def averaged(self, module: LightningModule) -> Iterator[None]:
        """The module with the averaged weights, and afterwards with its own."""
        self._swap_models(module)
        try:
            yield
        finally:
            self._swap_models(module)


@contextmanager
def evaluation_weights(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """The weights that a model is judged with: the average where there is one."""
    averages = [callback for callback in trainer.callbacks if isinstance(callback, EMA)]  # type: ignore[attr-defined]
    with averages[0].averaged(module) if averages else nullcontext():
        yield
