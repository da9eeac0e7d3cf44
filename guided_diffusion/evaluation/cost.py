"""The network evaluations that a sample takes: how many, and whether with or without its label."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.denoisers import Labels, Prediction
from guided_diffusion.guidance import needs_classifier
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.progress import progress_bar


def evaluations_per_sample(recipe: Recipe, schedule: Schedule) -> float:
    """Return how often the denoiser is evaluated for a sample; evaluations of a classifier are not counted."""
    return float(len(predictions_needed(recipe, schedule)))


def labels_needed(recipe: Recipe, schedule: Schedule) -> set[bool]:
    """Return whether the model predicts with the label (True), without it (False), or both."""
    times = recipe.sampler.times(schedule, recipe.sampler.steps)[:-1]
    scales = _evaluations(
        replace(recipe, sampler=replace(recipe.sampler, steps=min(recipe.sampler.steps, 2))), schedule
    )
    return {label for scale in scales for label in _predictions_at(times, _at(recipe, scale), schedule)}


def corrects_guidance(sampler: Sampler, schedule: Schedule) -> bool:
    """Return whether the sampler also evaluates its guided denoiser at other scales than its own, to correct it."""
    times, _ = _recorded(replace(sampler, steps=2), schedule, None)
    return set(times) != {None}


def predictions_needed(recipe: Recipe, schedule: Schedule) -> list[bool]:
    """Return, for each evaluation of the model that a sample takes, whether it gets the label."""
    evaluations = _evaluations(recipe, schedule)
    return [
        label for scale, times in evaluations.items() for label in _predictions_at(times, _at(recipe, scale), schedule)
    ]


def _at(recipe: Recipe, scale: float | None) -> Recipe:
    return recipe if scale is None else recipe.at(scale)


def check_first_step(recipe: Recipe, schedule: Schedule, reverse: bool = False) -> None:
    """Take one step with a model that predicts zeros, so that invalid settings of the sampler raise their error.

    Args:
        reverse: Whether the step is one of the reversed grid, from samples to noise.
    """
    times = recipe.sampler.times(schedule, recipe.sampler.steps)
    grid = times.flip(0) if reverse else times
    next(recipe.sampler.method(Recorder(), schedule, torch.zeros(1, 1, 1, 1), grid[:2], None, torch.zeros))


def _zeros(x_t: Tensor) -> Prediction:
    """Return a prediction of zeros, through which gradients pass."""
    return Prediction(0 * x_t, 0 * x_t)


@dataclass
class Recorder:
    """A guided denoiser that predicts zeros, and notes when and at which scales it is evaluated.

    Args:
        own_scale: The guidance scale that it tells a sampler.
        at_scale: The scale at which it is evaluated, ``None`` for its own.
    """

    own_scale: float = 2.0
    at_scale: float | None = None
    times: dict[float | None, list[Tensor]] = field(default_factory=lambda: defaultdict(list))
    """The times of the evaluations at each scale, in order."""
    questions: list[str] = field(default_factory=list)
    """A note for each time that a sampler asked for the scale."""

    def __call__(self, x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        self.times[self.at_scale].append(t)
        return _zeros(x_t)

    @property
    def scale(self) -> float:
        self.questions.append("scale")
        return self.own_scale

    def at(self, scale: float) -> Recorder:
        return replace(self, at_scale=scale)

    def likelihood(self, x0: Tensor, y: Tensor) -> Tensor:
        return x0.flatten(1).sum(1)


def _evaluations(recipe: Recipe, schedule: Schedule) -> Mapping[float | None, Float[Tensor, " evaluations"]]:
    """Return the times at which the sampler evaluates its denoiser, for each scale; ``None`` is the recipe's own."""
    times, depends = _recorded(recipe.sampler, schedule, None)
    return _recorded(recipe.sampler, schedule, float(recipe.guidance.scale))[0] if depends else times


@lru_cache
def _recorded(sampler: Sampler, schedule: Schedule, scale: float | None) -> tuple[dict[float | None, Tensor], bool]:
    """Return what ``_evaluations`` does, and whether the sampler asks for the scale; ``None`` is any scale."""
    recorder = Recorder() if scale is None else Recorder(scale)
    steps = sampler(recorder, schedule, torch.zeros(1, 1, dtype=torch.float64), None, torch.zeros)
    for _ in progress_bar(steps, desc="counting evaluations", total=sampler.steps, leave=False, delay=2):
        pass
    return {at_scale: torch.cat(times) for at_scale, times in recorder.times.items()}, bool(recorder.questions)


def _predictions_at(times: Float[Tensor, " n"], recipe: Recipe, schedule: Schedule) -> list[bool]:
    """Return, for each evaluation of the model that guidance needs at these times, whether it gets the label.

    All times are one batch, which is much faster than a walk of the sampler: a grid may have 100000 steps.
    """
    with_label: list[bool] = []

    def record_labels(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        with_label.extend([False] * len(x_t) if y is None else (y >= 0).tolist())
        return _zeros(x_t)

    guidance = recipe.guidance.counted_as()
    if needs_classifier(guidance):
        guidance = guidance.with_classifier(lambda x_t, t: x_t.flatten(1).sum(1, keepdim=True))
    denoise = recipe.threshold(guidance(record_labels, schedule), schedule)
    with torch.no_grad():
        denoise(torch.zeros(len(times), 1, 1, 1), times.float(), torch.zeros(len(times), dtype=torch.long))
    return with_label
