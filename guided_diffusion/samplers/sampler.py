"""A sampling method with its number of steps and its grid of times, as a config sets it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from guided_diffusion.denoisers import Denoise, Labels
from guided_diffusion.samplers.base import Step
from guided_diffusion.samplers.grids import uniform_times
from guided_diffusion.samplers.implicit import ddim
from guided_diffusion.samplers.noise import Draw
from guided_diffusion.schedules import Samples, Schedule
from guided_diffusion.utils.validation import check_positive


@dataclass(frozen=True)
class Sampler:
    """A sampling method and its grid of times, ``times(schedule, steps)``, with ``steps`` at least 1.

    ``method`` is a sampler of this package, with its settings bound by ``functools.partial``.
    """

    method: Callable[..., Iterator[Step]] = ddim
    steps: int = 25
    times: Callable[[Schedule, int], Tensor] = uniform_times

    def __post_init__(self) -> None:
        check_positive(steps=self.steps)

    def __call__(
        self, denoise: Denoise, schedule: Schedule, noise: Samples, labels: Labels = None, draw: Draw = torch.randn
    ) -> Iterator[Step]:
        return self.method(denoise, schedule, noise, self.times(schedule, self.steps), labels, draw)
