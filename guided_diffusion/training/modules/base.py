"""The base class of the LightningModules that train on noisy samples, and the names of their noise bands."""

from collections.abc import Callable, Iterable
from typing import Any, ClassVar, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from guided_diffusion.losses import TimeSampling, UniformTimes
from guided_diffusion.schedules import Schedule
from guided_diffusion.training.modules.learning_rate import build_schedule
from guided_diffusion.utils.rng import generator_for

ParameterGroups = Callable[[nn.Module], Iterable[Any]]
"""The parameters of a module as an optimizer takes them: ``parameter_groups(module)``."""

DROPOUT, VALIDATION = 1, 2
"""Keys that keep the random numbers of dropout and of validation apart from those of the training noise."""


class NoisyBatch(NamedTuple):
    """Clean samples, and the noise and times with which they are perturbed."""

    x0: Float[Tensor, "b *shape"]
    eps: Float[Tensor, "b *shape"]
    t: Float[Tensor, " b"]


class NoisyTraining(LightningModule):
    """The base class of trainings on noisy images or points: optimizer, checkpoint record and random numbers.

    Everything random in a training step, dropout included, follows from (seed, epoch, batch, rank), so
    neither callbacks nor an interruption can change it. Every validation has the same noise and times.

    Args:
        optimizer: The function that makes the optimizer, called as ``optimizer(parameters)``.
        lr_scheduler: The function that makes the schedule, ``lr_scheduler(optimizer)``; it advances every step. If its
            ``total_steps`` is the trainer's ``max_steps``, it spans the steps of the training (``build_schedule``).
        channels_last: Whether images and weights are stored with the channels last; its speed depends on the hardware.
            A network that wants them so does it by itself.
        compile: Whether the network runs through ``torch.compile``.
        time_sampling: The random times of training, by default uniform; those of validation are always uniform, so its
            losses are comparable.
        parameter_groups: The function that gives the optimizer's argument, ``parameter_groups(module)``; by default
            all parameters in one group.
    """

    kind: ClassVar[str]
    """The kind of model in the checkpoint, ``diffusion`` or ``classifier``."""
    schedule: Schedule

    def __init__(
        self,
        network: nn.Module,
        optimizer: Callable[..., Optimizer],
        lr_scheduler: Callable[..., LRScheduler],
        seed: int,
        channels_last: bool,
        compile: bool,
        time_sampling: TimeSampling | None = None,
        parameter_groups: ParameterGroups | None = None,
    ) -> None:
        super().__init__()
        self.optimizer = optimizer
        self.lr_scheduler = lr_scheduler
        self.seed = seed
        self._since_last_step: dict[str, list[Tensor]] = {}
        self.record: dict[str, Any] = {}  # goes into the checkpoint; the model is rebuilt from it
        self.time_sampling = time_sampling or UniformTimes()
        self.parameter_groups = parameter_groups or nn.Module.parameters
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        if channels_last:
            network.to(memory_format=torch.channels_last)
        if compile:
            network.compile()

    def training_generator(self, batch_idx: int) -> torch.Generator:
        """Return the generator of a training step, and seed the global one, which dropout uses, for it."""
        key = self.seed, self.current_epoch, batch_idx, self.global_rank
        # torch.manual_seed takes a millisecond for the devices that are not there
        seed_global = torch.default_generator.manual_seed if self.device.type == "cpu" else torch.manual_seed
        seed_global(generator_for("cpu", *key, DROPOUT).initial_seed())
        return generator_for(self.device, *key)

    def validation_generator(self, batch_idx: int) -> torch.Generator:
        """Return the generator of a validation step, the same in every validation."""
        return generator_for(self.device, self.seed, 0, batch_idx, self.global_rank, VALIDATION)

    def draw_noise(
        self, samples: Float[Tensor, "b *shape"], generator: torch.Generator, time_sampling: TimeSampling
    ) -> NoisyBatch:
        """Return these samples with times drawn by ``time_sampling``, and with noise."""
        x0 = samples.contiguous(memory_format=self.memory_format)
        times = time_sampling(len(x0), self.schedule, generator)
        return NoisyBatch(x0, torch.randn(x0.shape, generator=generator, device=self.device), times)

    def log_mean(self, name: str, value: Tensor, prog_bar: bool = False) -> None:
        """Log the mean of a value over the batches, up to this one, whose gradients the optimizer step accumulates."""
        values = self._since_last_step.setdefault(name, [])
        values.append(value.detach())
        self.log(name, torch.stack(values).mean(), prog_bar=prog_bar)

    def on_before_optimizer_step(self, optimizer: Optimizer) -> None:
        self._since_last_step.clear()

    def configure_optimizers(self) -> OptimizerLRScheduler:
        max_steps = self.trainer.max_steps
        num_steps = max_steps if max_steps > 0 else int(self.trainer.estimated_stepping_batches)
        optimizer, schedule = self.build_optimization(max_steps, num_steps)
        scheduler = {"scheduler": schedule, "interval": "step", "name": "train/learning_rate"}
        return cast(OptimizerLRScheduler, {"optimizer": optimizer, "lr_scheduler": scheduler})

    def build_optimization(self, max_steps: int, num_steps: int) -> tuple[Optimizer, LRScheduler]:
        """Return the optimizer and its learning-rate schedule; the arguments are those of ``build_schedule``."""
        optimizer = self.optimizer(self.parameter_groups(self))
        return optimizer, build_schedule(self.lr_scheduler, optimizer, max_steps, num_steps)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["guided_diffusion"] = self.record


def band_of(t: Float[Tensor, " b"], count: int) -> Int[Tensor, " b"]:
    """Return the index of the band, one of ``count`` equal parts of (0, 1], in which each time lies."""
    return (t * count).ceil().long() - 1


def band_name(band: int, count: int) -> str:
    """Return the name of a band by its times, as ``t_0.25_0.50`` for the second of four."""
    return f"t_{band / count:.2f}_{(band + 1) / count:.2f}"
