"""What the trainings on noisy samples have in common."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from guided_diffusion.losses import stratified_times
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.rng import generator_for

DROPOUT, VALIDATION = 1, 2
"""Purposes of random numbers, so that none are used twice."""


class Noisy(NamedTuple):
    """What a noisy batch is made of."""

    x0: Float[Tensor, "b *shape"]
    eps: Float[Tensor, "b *shape"]
    t: Float[Tensor, " b"]


class NoisyTraining(LightningModule):
    """Optimizer, record and random numbers of a training on noisy samples, images or points.

    All that is random in a training step, dropout included, follows from (seed, epoch, batch, rank), so
    neither callbacks nor an interruption can change it. Validation has the same noise and times every time.

    Args:
        network: what is trained.
        optimizer: ``optimizer(parameters)``.
        lr_scheduler: ``lr_scheduler(optimizer)``, advanced at every step.
        seed: of all random numbers.
        channels_last: store images and weights with the channels last; faster on some hardware, slower on other.
        compile: run the network through ``torch.compile``.
    """

    kind: ClassVar[str]
    """What the checkpoint is one of."""
    schedule: Schedule

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        lr_scheduler: Callable[[Optimizer], LRScheduler],
        seed: int,
        channels_last: bool,
        compile: bool,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.seed = seed
        self.record: dict[str, Any] = {}
        """What goes into the checkpoint beside the weights, so that the model can be rebuilt from it."""
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        network.to(memory_format=self.memory_format)
        if compile:
            network.compile()

    def training_generator(self, batch_idx: int) -> torch.Generator:
        """Of a training step; the global one, which dropout takes, is set for the step as well."""
        key = self.seed, self.current_epoch, batch_idx, self.global_rank
        torch.manual_seed(generator_for("cpu", *key, DROPOUT).initial_seed())
        return generator_for(self.device, *key)

    def validation_generator(self, batch_idx: int) -> torch.Generator:
        """Of a validation step: the same in every validation."""
        return generator_for(self.device, self.seed, 0, batch_idx, self.global_rank, VALIDATION)

    def noisy(self, images: Float[Tensor, "b *shape"], generator: torch.Generator) -> Noisy:
        """Times, stratified over the batch, and noise for these samples."""
        x0 = images.contiguous(memory_format=self.memory_format)
        times = stratified_times(len(x0), generator)
        return Noisy(x0, torch.randn(x0.shape, generator=generator, device=self.device), times)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.parameters())
        scheduler = {"scheduler": self.lr_scheduler(optimizer), "interval": "step", "name": "train/learning_rate"}
        return cast(OptimizerLRScheduler, {"optimizer": optimizer, "lr_scheduler": scheduler})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["guided_diffusion"] = self.record


def band_of(t: Float[Tensor, " b"], count: int) -> Int[Tensor, " b"]:
    """Which of ``count`` equal parts of (0, 1] each time is in."""
    return (t * count).ceil().long() - 1


def band_name(band: int, count: int) -> str:
    """``t_0.25_0.50`` for the second of four."""
    return f"t_{band / count:.2f}_{(band + 1) / count:.2f}"
