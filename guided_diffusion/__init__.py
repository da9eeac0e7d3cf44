"""A research framework for guided diffusion."""

import os
from typing import TYPE_CHECKING, Any

# Threads that wait for each other by spinning stall small operations wherever cores are shared: two trainings of
# the digits side by side on two cores took 800 ms a step, and take 207 ms so; one alone takes 118 ms for 96 ms.
# It works where torch is not imported yet, as in the programs; your own setting wins.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from guided_diffusion.checkpoints import load, load_classifier

__all__ = ["load", "load_classifier"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """``load`` and ``load_classifier``, imported when they are used: the core needs none of what loading needs."""
    if name in __all__:
        from guided_diffusion import checkpoints

        return getattr(checkpoints, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
