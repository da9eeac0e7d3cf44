"""The LightningModule that trains a class-conditional denoiser."""

import inspect
from collections.abc import Callable, Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric

from guided_diffusion.data.base import Batch
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.losses import TimeSampling, UniformTimes, Weighting, denoising_loss, drop_labels
from guided_diffusion.schedules import Schedule
from guided_diffusion.training.modules.base import NoisyTraining, ParameterGroups, band_name, band_of

NUM_BANDS = 4
"""The number of equal parts of time for which the validation loss is logged."""


class DiffusionModule(NoisyTraining):
    """The training of a class-conditional denoiser that also learns to denoise without a label.

    Args:
        network: The backbone, ``network(x_t, log_snr, y)``.
        parameterization: The output of the network: ``eps``, ``x0`` or ``v``.
        label_dropout: The probability with which a training sample loses its label.
        optimizer, lr_scheduler, seed, channels_last, compile: As for ``NoisyTraining``.
        time_sampling, parameter_groups: As for ``NoisyTraining``.

    Raises:
        ValueError: If ``label_dropout`` is not in [0, 1], or the network takes no label.
    """

    kind = "diffusion"

    def __init__(
        self,
        network: nn.Module,
        schedule: Schedule,
        parameterization: str,
        weighting: Weighting,
        optimizer: Callable[..., Optimizer],
        lr_scheduler: Callable[..., LRScheduler],
        label_dropout: float,
        seed: int = 0,
        channels_last: bool = False,
        compile: bool = False,
        time_sampling: TimeSampling | None = None,
        parameter_groups: ParameterGroups | None = None,
    ) -> None:
        super().__init__(
            network, optimizer, lr_scheduler, seed, channels_last, compile, time_sampling, parameter_groups
        )
        if not 0 <= label_dropout <= 1:
            raise ValueError(f"label_dropout must be in [0, 1], got {label_dropout}")
        _check_takes_labels(network)
        self.schedule = schedule
        self.denoiser = Denoiser(network, schedule, parameterization)
        self.weighting = weighting
        self.label_dropout = label_dropout
        self.band_losses = cast(Iterable[MeanMetric], nn.ModuleList(MeanMetric() for _ in range(NUM_BANDS)))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        generator = self.training_generator(batch_idx)
        labels = drop_labels(batch.labels, self.label_dropout, generator)
        loss = self._losses(Batch(batch.samples, labels), generator, self.time_sampling)[0].mean()
        self.log_mean("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        losses, times = self._losses(batch, self.validation_generator(batch_idx), UniformTimes())
        self.log("val/loss", losses.mean(), batch_size=len(losses), sync_dist=True, prog_bar=True)
        for band, metric in enumerate(self.band_losses):
            metric.update(losses[band_of(times, NUM_BANDS) == band])

    def on_validation_epoch_end(self) -> None:
        for band, metric in enumerate(self.band_losses):
            self.log(f"val/loss_{band_name(band, NUM_BANDS)}", metric.compute(), sync_dist=True)
            metric.reset()

    def _losses(self, batch: Batch, generator: torch.Generator, time_sampling: TimeSampling) -> tuple[Tensor, Tensor]:
        x0, eps, t = self.draw_noise(batch.samples, generator, time_sampling)
        return denoising_loss(self.denoiser, x0, batch.labels, t, eps, self.weighting), t


def _check_takes_labels(network: nn.Module) -> None:
    try:
        inspect.signature(network.forward).bind("x_t", "log_snr", "y")
    except ValueError:  # a built-in without a signature
        return
    except TypeError as error:
        name = type(network).__name__
        raise ValueError(
            f"module=diffusion needs a network that takes (x_t, log_snr, y), and {name} takes no label: choose another "
            "network, such as network=unet_8 for digits, or module=classifier"
        ) from error
