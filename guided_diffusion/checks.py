"""What can't be trained or sampled is refused here before anything is written, where no class alone can tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, cast

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from guided_diffusion.denoisers import Labels, Prediction
from guided_diffusion.guidance import Guidance
from guided_diffusion.sampling import Recipe
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


def check_trainer(node: dict[str, Any]) -> None:
    """Raise ``ValueError`` for what Lightning takes and then does nothing, never ends, or fails at later."""
    if not node["max_steps"] >= 1:
        raise ValueError(f"trainer.max_steps must be at least 1, got {node['max_steps']}")
    for name in ("accumulate_grad_batches", "log_every_n_steps", "val_check_interval"):
        if isinstance(value := node.get(name), int | float) and not value > 0:
            raise ValueError(f"trainer.{name} must be positive, got {value}")
    if (value := node.get("gradient_clip_val")) is not None and not value > 0:
        raise ValueError(f"trainer.gradient_clip_val must be positive, or null for no clipping, got {value}")


def check_optimization(module: LightningModule) -> None:
    """Raise ``ValueError`` where the optimizer or its schedule can't be made for the module, or would learn nothing."""
    try:
        optimizer = cast(Any, module.configure_optimizers())["optimizer"]
    except (ValueError, TypeError) as error:
        raise ValueError(f"module.optimizer or module.lr_scheduler: {error}") from error
    lr = optimizer.defaults["lr"]
    if not 0 < lr < math.inf:
        raise ValueError(f"module.optimizer.lr must be positive and finite, got {lr}")


def check_recipe(recipe: Recipe, schedule: Schedule) -> None:
    """Raise ``ValueError`` if the grid of times is none, or the sampler can't take its first step."""
    times = recipe.sampler.times(schedule, recipe.sampler.steps)
    if not times.isfinite().all() or not (times.diff() < 0).all():
        raise ValueError(f"sampler.times don't fall from 1 to 0 in {recipe.sampler.steps} steps: change its settings")
    labels_asked_for(recipe, schedule)


def labels_asked_for(recipe: Recipe, schedule: Schedule) -> set[bool]:
    """Whether the model is asked for predictions with the label (True), without it (False), or both."""
    return set(predictions_asked_for(recipe, schedule))


def predictions_asked_for(recipe: Recipe, schedule: Schedule) -> list[bool]:
    """Every prediction that a sample asks the model for, with the label (True) or without it (False), in order.

    They are counted on a model that estimates nothing, which is quick. What a classifier is asked for is not among
    them.
    """
    asked: list[bool] = []

    def nothing(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        asked.extend([False] * len(x_t) if y is None else (y >= 0).tolist())
        return Prediction(torch.zeros_like(x_t), torch.zeros_like(x_t))

    guidance = _with_some_classifier(recipe.guidance)
    denoise = recipe.threshold(guidance(nothing, schedule), schedule)
    noise, label = torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        for _ in recipe.sampler(denoise, schedule, noise, label, torch.zeros):
            pass
    return asked


def _with_some_classifier(guidance: Guidance) -> Guidance:
    if "classifier" not in {field.name for field in fields(guidance)}:  # type: ignore[arg-type]
        return guidance
    return replace(guidance, classifier=lambda x_t, t: x_t.flatten(1).sum(1, keepdim=True))  # type: ignore[type-var]


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
    untaught = [scale for scale in scales if missing in labels_asked_for(recipe.at(scale), schedule)]
    if untaught:
        taught = [scale for scale in (0, 1) if missing not in labels_asked_for(recipe.at(scale), schedule)]
        mend = f"{key}={taught if key == 'scales' else taught[0]}" if taught else "another guidance"
        raise ValueError(
            f"{key}: at {', '.join(f'{scale:g}' for scale in untaught)} samples need predictions "
            f"{'with' if missing else 'without'} a label, which label_dropout={label_dropout:g} does not teach: take "
            f"{mend} or another label_dropout, or add untaught_scales=true to see them all the same"
        )
