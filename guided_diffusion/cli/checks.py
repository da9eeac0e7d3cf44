"""Checks that no single class can make: of seed, scales and time grid, and of label dropout against the scales."""

import math
from collections.abc import Sequence

from guided_diffusion.evaluation.cost import check_first_step, labels_needed
from guided_diffusion.recipe import Recipe
from guided_diffusion.schedules import Schedule


def check_seed(seed: int) -> None:
    """Raise ``ValueError`` for a seed outside [0, 2^32), the range that every generator takes."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in [0, 2^32), got {seed}")


def check_scales(scales: Sequence[float], key: str = "scales") -> None:
    """Raise ``ValueError`` unless there is a guidance scale, and all are finite; ``key`` is for the message."""
    if not scales:
        raise ValueError(f"{key} must hold at least one number")
    if not all(map(math.isfinite, scales)):
        raise ValueError(f"{key} must be finite, got {list(scales)}")


def check_recipe(recipe: Recipe, schedule: Schedule) -> None:
    """Raise ``ValueError`` if the times don't fall from 1 to 0, or the sampler can't take its first step."""
    times = recipe.sampler.times(schedule, recipe.sampler.steps)
    if not times.isfinite().all() or not (times.diff() < 0).all():
        raise ValueError(f"sampler.times don't fall from 1 to 0 in {recipe.sampler.steps} steps: change its settings")
    check_first_step(recipe, schedule)


def check_label_dropout(
    label_dropout: float, recipe: Recipe, scales: Sequence[float], schedule: Schedule, key: str
) -> None:
    """Raise ``ValueError`` for scales that need predictions which the training does not teach.

    A label dropout of 0 teaches no predictions without a label, and one of 1 teaches none with a label. ``key`` is the
    config key that sets the scales, for the message.
    """
    missing = {0.0: False, 1.0: True}.get(label_dropout)
    if missing is None:
        return
    untaught = [scale for scale in scales if missing in labels_needed(recipe.at(scale), schedule)]
    if untaught:
        taught = [scale for scale in (0, 1) if missing not in labels_needed(recipe.at(scale), schedule)]
        remedy = f"{key}={taught if key == 'scales' else taught[0]}" if taught else "another guidance"
        raise ValueError(
            f"{key}: at {', '.join(f'{scale:g}' for scale in untaught)} samples need predictions "
            f"{'with' if missing else 'without'} a label, which label_dropout={label_dropout:g} does not teach: use "
            f"{remedy} or another label_dropout, or add untaught_scales=true to sample them anyway"
        )
