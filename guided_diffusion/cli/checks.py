"""What can't be trained or sampled is refused here before anything is written, where no class alone can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence

from guided_diffusion.evaluation.cost import labels_needed
from guided_diffusion.recipe import Recipe
from guided_diffusion.schedules import Schedule


def check_seed(seed: int) -> None:
    """Raise ``ValueError`` unless every generator can be seeded with it."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in [0, 2^32), got {seed}")


def check_scales(scales: Sequence[float]) -> None:
    """Raise ``ValueError`` unless there are scales of guidance, all of them finite."""
    if not scales:
        raise ValueError("scales must hold at least one number")
    if not all(map(math.isfinite, scales)):
        raise ValueError(f"scales must be finite, got {list(scales)}")


def check_recipe(recipe: Recipe, schedule: Schedule) -> None:
    """Raise ``ValueError`` if the grid of times is none, or the sampler can't take its first step."""
    times = recipe.sampler.times(schedule, recipe.sampler.steps)
    if not times.isfinite().all() or not (times.diff() < 0).all():
        raise ValueError(f"sampler.times don't fall from 1 to 0 in {recipe.sampler.steps} steps: change its settings")
    labels_needed(recipe, schedule)


def check_label_dropout(
    label_dropout: float, recipe: Recipe, scales: Sequence[float], schedule: Schedule, key: str
) -> None:
    """Raise ``ValueError`` for scales at which samples need what the training does not teach.

    Without label dropout nothing is learned of predictions without a label, with a probability of 1 nothing of those
    with one.

    Args:
        label_dropout: of the training.
        recipe: how samples are made.
        scales: of guidance.
        schedule: the noise schedule.
        key: what the scales are set by, for the message.
    """
    missing = {0.0: False, 1.0: True}.get(label_dropout)
    if missing is None:
        return
    untaught = [scale for scale in scales if missing in labels_needed(recipe.at(scale), schedule)]
    if untaught:
        taught = [scale for scale in (0, 1) if missing not in labels_needed(recipe.at(scale), schedule)]
        mend = f"{key}={taught if key == 'scales' else taught[0]}" if taught else "another guidance"
        raise ValueError(
            f"{key}: at {', '.join(f'{scale:g}' for scale in untaught)} samples need predictions "
            f"{'with' if missing else 'without'} a label, which label_dropout={label_dropout:g} does not teach: take "
            f"{mend} or another label_dropout, or add untaught_scales=true to see them all the same"
        )
