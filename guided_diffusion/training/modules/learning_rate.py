"""Building the learning-rate schedule of a training, over the number of its steps."""

import inspect
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

SLIGHTLY_LESS = 1 - 1e-6


def build_schedule(
    factory: Callable[..., LRScheduler], optimizer: Optimizer, max_steps: int, num_steps: int
) -> LRScheduler:
    """Return the schedule ``factory(optimizer)``, with a ``total_steps`` that fits the training if it has that setting.

    A schedule whose ``total_steps`` is ``max_steps`` spans the ``num_steps`` of the training; another length in the
    config stays. ``OneCycleLR`` would divide by zero if one of its phases had no steps, so its warm-up is then shorter
    by a millionth. A training of one step has a schedule over two, because the last rate of a cycle is almost 0.

    Args:
        factory: The function that makes the schedule, such as a partial of ``OneCycleLR``.
        max_steps: The trainer's limit of steps, -1 for none.
        num_steps: The number of optimizer steps that the training takes.
    """
    settings = {name: parameter.default for name, parameter in inspect.signature(factory).parameters.items()}
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
    """Return whether the warm-up of ``OneCycleLR`` ends at step 0, or only at the last step."""
    return float(pct_start * total_steps) - 1 in (0, total_steps - 1)
