"""The parts that all samplers share: the state after a step, and checks of their arguments."""

from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor

from guided_diffusion.samplers.grids import Grid
from guided_diffusion.schedules import Samples


class Step(NamedTuple):
    """The state of a sampler after a step."""

    t: Float[Tensor, ""]
    """The time after the step."""
    x: Samples
    """The samples at that time."""
    x0: Samples
    """The estimates of the clean samples from which the step was made."""


def check_fraction(name: str, value: float) -> None:
    """Raise ``ValueError`` if a setting is not in [0, 1]."""
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")


def check_falling(name: str, times: Grid) -> None:
    """Raise ``ValueError`` if the times rise anywhere, for a sampler of this name that adds noise."""
    if (times.diff() > 0).any():
        raise ValueError(
            f"{name} adds noise in each step, so it can't go along rising times, from samples to noise: "
            "use ddim with eta=0, heun or dpmpp_2m"
        )
