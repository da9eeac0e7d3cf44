"""The learning rate schedule of a training, over the number of its steps."""

import inspect
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

SLIGHTLY_LESS = 1 - 1e-6


def build_schedule(
    factory: Callable[..., LRScheduler], optimizer: Optimizer, max_steps: int, num_steps: int
) -> LRScheduler:
    """Return ``factory(optimizer)``, or for a schedule with ``total_steps``, such as ``OneCycleLR``, one that fits.

    It spans the steps of the training, unless the config gives it another length. Where a phase of ``OneCycleLR``
    would have no length, by which torch divides, the warm-up ends a millionth earlier. A single step has the learning
    rate of the first of two, because the last one of a cycle is almost 0.

    Args:
        max_steps: The limit of steps in the config, -1 for none; a schedule with this ``total_steps`` gets another.
        num_steps: The number of optimizer steps that the training takes.
    """
    settings = {name: one.default for name, one in inspect.signature(factory).parameters.items()}
    if "total_steps" not in settings:
        return factory(optimizer)
    changed: dict[str, Any] = {}
    total = settings["total_steps"]
    if total == max_steps:
        total = changed["total_steps"] = max(num_steps, 2)
    if isinstance(total, int) and "pct_start" in settings and _has_empty_phase(settings["pct_start"], total):
        changed["pct_start"] = settings["pct_start"] * SLIGHTLY_LESS
    return factory(optimizer, **changed)


def _has_empty_phase(pct_start: float, total_steps: int) -> bool:
    """Return whether ``OneCycleLR``'s warm-up is from step 0 to step 0, or leaves no step for the rest."""
    return float(pct_start * total_steps) - 1 in (0, total_steps - 1)
