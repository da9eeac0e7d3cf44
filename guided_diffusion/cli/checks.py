"""Checks that no single class can make: the seed, the scales, the time grid, folders, and keys that exclude others."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from guided_diffusion.checkpoints.guidance_config import OTHER_MODELS, Node, guidance_wants_guide
from guided_diffusion.cli.config import given_keys, in_sweep
from guided_diffusion.evaluation.cost import check_first_step, corrects_guidance, labels_needed
from guided_diffusion.evaluation.modalities import modality
from guided_diffusion.evaluation.plan import Plan
from guided_diffusion.evaluation.proportions import LABELS
from guided_diffusion.recipe import Recipe
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.files import check_cache, check_writable

JUDGES = ("judge", "judge.first", "judge.second")
JUDGE_SETTINGS = ("architecture", "steps", "batch_size", "learning_rate", "width", "seed")
REPLACED_BY = (
    ("guidance.scale", "scales"),
    *((model, f"guidance.{model}{path}") for model in OTHER_MODELS for path in ("", ".checkpoint")),
    ("label_dropout", "module.label_dropout"),
    ("module.optimizer.lr", "module.lr_scheduler.max_lr"),
    ("module.optimizer.adamw_lr", "module.lr_scheduler.max_lr"),
    *((f"{judge}.{name}", f"{judge}.checkpoint") for judge in JUDGES for name in JUDGE_SETTINGS),
)
"""The pairs of keys of which the first has no effect where the second is given."""


def check_no_key_replaces_another(overrides: Sequence[str]) -> None:
    """Raise ``ValueError`` if the command line gives a key that has no effect beside another one that it gives too."""
    given = given_keys(overrides)
    for key, other in REPLACED_BY:
        if {key, other} <= given:
            raise ValueError(f"{key} has no effect beside {other}: leave one of them out")


def check_keys_of_module(overrides: Sequence[str], module: Mapping[str, Any]) -> None:
    """Raise ``ValueError`` if the command line sets a key that the module, whose config is given, does not use."""
    for key in ("label_dropout", "weighting", "time_sampling"):
        if key not in module and _sets(overrides, key):
            name = str(module.get("_target_")).rpartition(".")[2]
            raise ValueError(f"{key} has no effect on {name}, which has no such setting: leave it out")


def check_other_models_guide(overrides: Sequence[str], guidance: Node) -> None:
    """Raise ``ValueError`` if the command line names a classifier or weaker model that the guidance does not use.

    A sweep is not checked: the model may be for its other jobs, as in ``classifier=PATH guidance=cfg,classifier``.
    """
    if in_sweep():
        return
    for key, model in OTHER_MODELS.items():
        if key in given_keys(overrides) and not model.is_needed_by(guidance):
            raise ValueError(f"{key} has no effect on this guidance: add guidance={model.option}, or leave it out")


def check_guide_is_used(overrides: Sequence[str], guidance: Node) -> None:
    """Raise ``ValueError`` if the command line sets how a guide is trained, and this expanded guidance needs none.

    A sweep is not checked: the settings may be for its other jobs.
    """
    if not in_sweep() and not guidance_wants_guide(guidance) and _sets(overrides, "guide"):
        raise ValueError("guide has no effect without guidance=classifier classifier=auto: add them, or leave it out")


def check_judge_is_used(overrides: Sequence[str], kind: str) -> None:
    """Raise ``ValueError`` if the command line sets the judge, and data of this kind need none."""
    if not modality(kind).uses_judge and _sets(overrides, "judge"):
        raise ValueError(f"judge has no effect on {kind}, which need none: leave it out")


def _sets(overrides: Sequence[str], key: str) -> bool:
    """Return whether the command line gives this key, or one below it."""
    return any(f"{given}.".startswith(f"{key}.") for given in given_keys(overrides))


def check_seed(seed: int) -> None:
    """Raise ``ValueError`` for a seed outside [0, 2^32), the range that every generator takes."""
    if not 0 <= seed < 2**32:
        raise ValueError(f"seed must be in [0, 2^32), got {seed}")


def check_scales(scales: Sequence[float], key: str = "scales") -> None:
    """Raise ``ValueError``, with the name of the ``key``, unless there is a guidance scale and all are finite."""
    if not scales:
        raise ValueError(f"{key} must hold at least one number")
    if not all(map(math.isfinite, scales)):
        raise ValueError(f"{key} must be finite, got {list(scales)}")


def check_output_folders(folder: Path, inside: Iterable[str] = ()) -> None:
    """Raise ``OSError`` if a run's folder, or one of the folders of these names ``inside`` it, can't be written."""
    for name in ("", *inside):
        check_writable(folder / name, "output_dir")


def check_space(plan: Plan, at_once: int = 1) -> None:
    """Raise ``OSError`` if the cache can't be written, or has no space for the samples of ``at_once`` such plans."""
    values = len(plan.scales) * plan.per_scale * math.prod(plan.shape)
    check_cache(needed=4 * values * at_once)


def check_labels(labels: Any) -> None:
    """Raise ``ValueError`` if there is no way of this name to draw labels."""
    if labels not in LABELS:
        raise ValueError(f"labels must be {' or '.join(LABELS)}, got {labels}")


def check_recipe(recipe: Recipe, schedule: Schedule) -> None:
    """Raise ``ValueError`` if the times don't fall from 1 to 0, or the sampler can't take its first step."""
    times = recipe.sampler.times(schedule, recipe.sampler.steps)
    if not times.isfinite().all() or not (times.diff() < 0).all():
        raise ValueError(f"sampler.times don't fall from 1 to 0 in {recipe.sampler.steps} steps: change its settings")
    check_first_step(recipe, schedule)


def check_effective_scale(label_dropout: float, untaught: bool, recipe: Recipe, schedule: Schedule) -> None:
    """Raise ``ValueError`` if the effective scale of the recipe's samples would mean nothing.

    It is measured from predictions with and without a label, at each evaluation of the guided denoiser. ``untaught``
    allows predictions that the label dropout does not teach.
    """
    if corrects_guidance(recipe.sampler, schedule):
        raise ValueError(
            "effective_scale: this sampler corrects guidance by evaluations at other scales, which would be measured "
            "too: use sampler=ddim, ddpm, heun, dpmpp_2m or sde_dpmpp_2m, or leave effective_scale out"
        )
    if label_dropout in (0, 1) and not untaught:
        raise ValueError(
            f"effective_scale compares predictions with and without a label, and label_dropout={label_dropout:g} "
            "teaches only one of them: leave it out, or add untaught_scales=true to measure it anyway"
        )


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
        values = f"[{','.join(map(str, taught))}]" if key == "scales" else f"{min(taught, default='')}"
        remedy = f"{key}={values}" if taught else "another guidance"
        raise ValueError(
            f"{key}: at {', '.join(f'{scale:g}' for scale in untaught)} samples need predictions "
            f"{'with' if missing else 'without'} a label, which label_dropout={label_dropout:g} does not teach: use "
            f"{remedy} or another label_dropout, or add untaught_scales=true to sample them anyway"
        )
