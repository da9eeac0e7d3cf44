"""The training loop of the peers: the noise prediction of DDPM, with labels dropped at random for guidance.

A peer keeps its own network, schedule, steps of time, optimizer, learning rates, batch and averaging. The rest is the
same for all: the data, the budget, and samples by our samplers on the peer's own schedule. The peer runs in whichever
of float32 and bfloat16, channels first and channels last, is fastest on this machine.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from diffusers.training_utils import EMAModel
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from contestants.base import Calibration, Settings, Trained
from guided_diffusion.data import ImageDataModule
from guided_diffusion.denoisers import Denoiser, Labels
from guided_diffusion.guidance import Clip, NoThreshold
from guided_diffusion.losses import Uniform, denoising_loss, drop_labels
from guided_diffusion.recipe import Recipe
from guided_diffusion.schedules import LinearBeta

Optimization = Callable[[Sequence[nn.Parameter], int], tuple[Optimizer, LRScheduler]]
"""The optimizer and the learning rates of a training of this many steps: ``optimization(parameters, steps)``."""

TIMED_STEPS = 2
"""The number of steps of which calibration takes the fastest."""


@dataclass(frozen=True)
class Peer:
    """The training of somebody else's recipe."""

    network: Callable[[int, int, LinearBeta], nn.Module]
    """The function that makes the network from the numbers of channels and classes and the schedule."""
    schedule: LinearBeta
    first_step: int
    """The least noisy step of the schedule that is trained, counted from 1."""
    batch_size: int
    optimization: Optimization
    scales: Sequence[float]
    average: bool
    """Whether samples come from averaged weights, as diffusers averages them."""
    gradient_norm: float = math.inf
    """The norm to which gradients are clipped."""
    low: float = -1.0
    """The value of a black pixel; a white one has 1."""
    clip_samples: bool = True
    """Whether the sampler clips its estimate of the clean image."""
    label_dropout: float = 0.1

    def calibrate(self, data: ImageDataModule, settings: Settings) -> Calibration:
        """Return the time of a step in the fastest precision and memory format."""
        options = itertools.product((False, True), (False, True))
        return min(self._timed(data, settings, autocast, last) for autocast, last in options)

    def _timed(self, data: ImageDataModule, settings: Settings, autocast: bool, channels_last: bool) -> Calibration:
        training = Training(self, data, settings.seed, 1000, Calibration(0, 0, autocast, channels_last))
        taken = []
        for _ in range(1 + TIMED_STEPS):
            start = time.process_time()
            training.step()
            taken.append(time.process_time() - start)
        return Calibration(min(taken[1:]), 0.0, autocast, channels_last)

    def train(self, data: ImageDataModule, settings: Settings, steps: int, calibration: Calibration) -> Trained:
        """Train for this number of steps; only these count, not the building of the network."""
        training = Training(self, data, settings.seed, steps, calibration)
        start = time.process_time()
        for _ in range(steps):
            training.step()
        seconds = time.process_time() - start
        threshold = Clip() if self.clip_samples else NoThreshold()
        recipe = Recipe(threshold=threshold, sampler=settings.peer_sampler, batch_size=250)
        denoiser = training.averaged()
        return Trained(
            denoiser, recipe, self.scales, seconds, steps, self.batch_size, calibration.autocast, low=self.low
        )


class Training:
    """A training of a peer in progress."""

    def __init__(self, peer: Peer, data: ImageDataModule, seed: int, steps: int, calibration: Calibration) -> None:
        torch.manual_seed(seed)
        self.peer = peer
        self.autocast = calibration.autocast
        self.format = torch.channels_last if calibration.channels_last else torch.contiguous_format
        network = peer.network(data.shape[0], data.num_classes, peer.schedule).to(memory_format=self.format)
        self.denoiser = Denoiser(network, peer.schedule, "eps").train()
        self.parameters = list(self.denoiser.parameters())
        self.optimizer, self.scheduler = peer.optimization(self.parameters, steps)
        self.average = EMAModel(self.parameters, decay=0.9999, use_ema_warmup=True, power=0.75, foreach=True)
        self.generator = torch.Generator().manual_seed(seed)
        self.batches = batches(data, peer.batch_size, self.generator)

    def step(self) -> None:
        peer, (images, labels) = self.peer, next(self.batches)
        x0 = (peer.low + (1 - peer.low) * images.float() / 255).contiguous(memory_format=self.format)
        last = peer.schedule.num_timesteps
        t = torch.randint(peer.first_step, last + 1, (len(x0),), generator=self.generator) / last
        eps = torch.randn(x0.shape, generator=self.generator)
        y = drop_labels(labels, peer.label_dropout, self.generator)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            loss = denoising_loss(self.denoiser, x0, y, t, eps, Uniform()).mean()
        self.optimizer.zero_grad()
        loss.backward()
        if peer.gradient_norm < math.inf:
            nn.utils.clip_grad_norm_(self.parameters, peer.gradient_norm)
        self.optimizer.step()
        self.scheduler.step()
        if peer.average:
            self.average.step(self.parameters)

    def averaged(self) -> Denoiser:
        """Return the denoiser for sampling, with averaged weights if the peer averages them."""
        if self.peer.average:
            self.average.copy_to(self.parameters)
        return self.denoiser.eval()


def batches(data: ImageDataModule, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of training images, as uint8, and their labels: in a new order in every epoch, without end."""
    images, labels = data.split("train")
    while True:
        for rows in torch.randperm(len(labels), generator=generator).split(size):
            yield images[rows], labels[rows]


def step_of(log_snr: Float[Tensor, " b"], schedule: LinearBeta) -> Float[Tensor, " b"]:
    """Return the step of a peer's schedule, counted from 1, that has this log-SNR."""
    return (schedule.time(log_snr.double()) * schedule.num_timesteps).float()


def with_missing(y: Labels, like: Float[Tensor, " b"]) -> Int[Tensor, " b"]:
    """Return labels as a tensor in which -1 stands for no label."""
    return torch.full_like(like, -1, dtype=torch.long) if y is None else y
