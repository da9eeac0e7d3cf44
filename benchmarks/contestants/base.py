"""What every contestant offers: it is calibrated, then trained for a budget of processor time, and then samples."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from jaxtyping import Float, Int
from torch import Tensor

from guided_diffusion.data import ImageDataModule
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler


class Settings(NamedTuple):
    """The settings of a run of the benchmark that contestants need."""

    overrides: Sequence[str]
    """Hydra overrides of our trainings, which also choose the data of all."""
    seed: int
    peer_sampler: Sampler
    """The sampler of all contestants but ours."""


class Calibration(NamedTuple):
    """The processor time that a training takes."""

    seconds_per_step: float
    fixed_seconds: float
    """The time that does not depend on the number of steps."""
    autocast: bool
    """Whether the network runs in bfloat16."""
    channels_last: bool
    """Whether the contestant is trained with the channels last."""

    def steps(self, seconds: float) -> int:
        """Return the number of steps that fit into this processor time, at least one."""
        return max(1, int((seconds - self.fixed_seconds) / self.seconds_per_step))


@dataclass(frozen=True)
class Trained:
    """A trained model with its recipe for samples, and what its training took."""

    denoiser: Denoiser
    recipe: Recipe
    scales: Sequence[float]
    """The guidance scales at which it is measured."""
    seconds: float
    """The processor time of the training."""
    steps: int
    batch_size: int
    autocast: bool
    low: float = -1.0
    """The value of a black pixel in its data; a white one has 1."""

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.denoiser.parameters())

    def sample(
        self, labels: Int[Tensor, " n"], shape: Sequence[int], scale: float, seed: int
    ) -> Float[Tensor, "n c h w"]:
        """Return samples of these labels in [-1, 1]."""
        with torch.autocast("cpu", torch.bfloat16, enabled=self.autocast):
            drawn = self.recipe.at(scale).sample(self.denoiser, labels, shape, seed=seed)
        return (2 * (drawn - self.low) / (1 - self.low) - 1).clamp(-1, 1)


class Contestant(Protocol):
    """A way to train a class-conditional diffusion model."""

    def calibrate(self, data: ImageDataModule, settings: Settings) -> Calibration:
        """Measure the processor time of the training; what this takes counts for no budget."""

    def train(self, data: ImageDataModule, settings: Settings, steps: int, calibration: Calibration) -> Trained:
        """Train anew for this number of steps, over which the learning rate decays."""
