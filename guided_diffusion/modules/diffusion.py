"""Training a denoiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from guided_diffusion.data.base import Batch
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.losses import Weighting, denoising_loss, drop_labels, stratified_times
from guided_diffusion.randomness import generator_for
from guided_diffusion.schedules import Schedule

NUM_BANDS = 4
DROPOUT, VALIDATION = 1, 2
"""Purposes of random numbers, so that none are used twice."""


class DiffusionModule(LightningModule):
    """A class-conditional denoiser that learns to do without the label as well.

    All that is random in a training step, dropout included, follows from (seed, epoch, batch, rank), so
    neither callbacks nor an interruption can change it. Validation has the same noise and times every time.

    Args:
        network: the backbone, ``network(x_t, log_snr, y)``.
        schedule: the noise schedule.
        parameterization: what the network outputs: ``eps``, ``x0`` or ``v``.
        weighting: of the loss over noise levels.
        optimizer: ``optimizer(parameters)``.
        lr_scheduler: ``lr_scheduler(optimizer)``, advanced at every step.
        label_dropout: probability with which a training sample loses its label.
        seed: of times, noise, label dropout and dropout.
        channels_last: store images and weights with the channels last; faster on some hardware, slower on other.
        compile: run the network through ``torch.compile``.

    Raises:
        ValueError: if ``label_dropout`` is not in [0, 1].
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        parameterization: str,
        weighting: Weighting,
        optimizer: Callable[..., Optimizer],
        lr_scheduler: Callable[[Optimizer], LRScheduler],
        label_dropout: float,
        seed: int = 0,
        channels_last: bool = False,
        compile: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout must be in [0, 1], got {label_dropout}")
        self.denoiser = Denoiser(network, schedule, parameterization)
        self.weighting = weighting
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.label_dropout = label_dropout
        self.seed = seed
        self.record: dict[str, Any] = {}
        """What goes into the checkpoint beside the weights, so that the model can be rebuilt from it."""
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.band_losses = cast(Iterable[MeanMetric], nn.ModuleList(MeanMetric() for _ in range(NUM_BANDS)))
        network.to(memory_format=self.memory_format)
        if compile:
            network.compile()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        generator = generator_for(self.device, self.seed, self.current_epoch, batch_idx, self.global_rank)
        dropout = generator_for("cpu", self.seed, self.current_epoch, batch_idx, self.global_rank, DROPOUT)
        torch.manual_seed(dropout.initial_seed())  # dropout takes no generator
        labels = drop_labels(batch.labels, self.label_dropout, generator)
        loss = self._losses(Batch(batch.images, labels), generator)[0].mean()
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        losses, times = self._losses(
            batch, generator_for(self.device, self.seed, 0, batch_idx, self.global_rank, VALIDATION)
        )
        self.log("val/loss", losses.mean(), batch_size=len(losses), sync_dist=True, prog_bar=True)
        bands = (times * NUM_BANDS).ceil().long() - 1
        for band, metric in enumerate(self.band_losses):
            metric.update(losses[bands == band])

    def on_validation_epoch_end(self) -> None:
        for band, metric in enumerate(self.band_losses):
            self.log(
                f"val/loss_t_{band / NUM_BANDS:.2f}_{(band + 1) / NUM_BANDS:.2f}", metric.compute(), sync_dist=True
            )
            metric.reset()

    def _losses(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        x0 = batch.images.contiguous(memory_format=self.memory_format)
        times = stratified_times(len(x0), generator)
        eps = torch.randn(x0.shape, generator=generator, device=self.device)
        return denoising_loss(self.denoiser, x0, batch.labels, times, eps, self.weighting), times

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self.denoiser.parameters())
        scheduler = {"scheduler": self.lr_scheduler(optimizer), "interval": "step", "name": "train/learning_rate"}
        return cast(OptimizerLRScheduler, {"optimizer": optimizer, "lr_scheduler": scheduler})

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["guided_diffusion"] = self.record
