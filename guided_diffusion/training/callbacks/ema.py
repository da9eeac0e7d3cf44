"""The exponential moving average (EMA) of the weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor


@dataclass(frozen=True)
class WarmedUpDecay:
    """The update ``average <- d average + (1 - d) weights`` with ``d = min(decay, (1 + n) / (warm_up + n))`` at step n.

    With this warm-up the average is useful in short runs too; with a constant 0.999 the initial weights would
    still dominate it. Buffers of integers are copied.
    """

    decay: float
    warm_up: float = 10

    @torch.no_grad()
    def __call__(self, average: Sequence[Tensor], weights: Sequence[Tensor], num_averaged: Tensor | int) -> None:
        if not average[0].is_floating_point():  # torch calls this once for each type of tensor
            torch._foreach_copy_(list(average), list(weights))
            return
        n = int(num_averaged)
        rate = 1 - min(self.decay, (1 + n) / (self.warm_up + n))
        torch._foreach_lerp_(list(average), list(weights), rate)


class EMA(WeightAveraging):
    """A callback that averages the weights: Lightning's ``WeightAveraging`` with a warm-up, and picklable.

    Validation and checkpoints use the average. A checkpoint holds the raw weights as well, and training
    continues with those.

    Args:
        decay: The decay of the average; with 0 the average is the latest weights.
        warm_up: The length of the warm-up, at least 1 step: early on the average spans about ``n / warm_up`` steps.

    Raises:
        ValueError: If ``decay`` is not in [0, 1), or ``warm_up`` below 1.
    """

    def __init__(self, decay: float = 0.999, warm_up: float = 10) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay must be in [0, 1), got {decay}")
        if not warm_up >= 1:
            raise ValueError(f"warm_up must be at least 1, got {warm_up}")
        super().__init__(multi_avg_fn=WarmedUpDecay(decay, warm_up))
        self._validating = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_start(trainer, pl_module)
        self._validating = True

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_validation_epoch_end(trainer, pl_module)
        self._validating = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the raw weights back if validation was interrupted, because a checkpoint may be saved after this."""
        if self._validating:
            self._swap_models(pl_module)
            self._validating = False


@contextmanager
def evaluation_weights(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Give the module its evaluation weights within the block: the average, if an ``EMA`` callback keeps one."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    average = next((callback for callback in callbacks if isinstance(callback, EMA)), None)
    swap = average._swap_models if average else lambda _: None
    swap(module)
    try:
        yield
    finally:
        swap(module)
