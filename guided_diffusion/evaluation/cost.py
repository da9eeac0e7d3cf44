"""The network evaluations that a sample takes: how many, and whether with or without its label."""

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
    return set(_predictions_at(recipe.sampler.times(schedule, recipe.sampler.steps)[:-1], recipe, schedule))


def predictions_needed(recipe: Recipe, schedule: Schedule) -> list[bool]:
    """Return, for each evaluation of the model that a sample takes, whether it gets the label."""
    return _predictions_at(_evaluation_times(recipe.sampler, schedule), recipe, schedule)


def check_first_step(recipe: Recipe, schedule: Schedule, reverse: bool = False) -> None:
    """Take one step with a model that predicts zeros, so that invalid settings of the sampler raise their error.

    Args:
        reverse: Whether the step is one of the reversed grid, from samples to noise.
    """
    times = recipe.sampler.times(schedule, recipe.sampler.steps)
    grid = times.flip(0) if reverse else times
    next(recipe.sampler.method(_zeros, schedule, torch.zeros(1, 1, 1, 1), grid[:2], None, torch.zeros))


def _zeros(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
    return Prediction(torch.zeros_like(x_t), torch.zeros_like(x_t))


@lru_cache
def _evaluation_times(sampler: Sampler, schedule: Schedule) -> Float[Tensor, " evaluations"]:
    """Return the times at which the sampler evaluates its denoiser, in order."""
    times: list[Tensor] = []

    def record_times(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        times.append(t)
        return _zeros(x_t, t, y)

    steps = sampler(record_times, schedule, torch.zeros(1, 1, dtype=torch.float64), None, torch.zeros)
    for _ in progress_bar(steps, desc="counting evaluations", total=sampler.steps, leave=False, delay=2):
        pass
    return torch.cat(times)


def _predictions_at(times: Float[Tensor, " n"], recipe: Recipe, schedule: Schedule) -> list[bool]:
    """Return, for each evaluation of the model that guidance needs at these times, whether it gets the label.

    All times are one batch, which is much faster than a walk of the sampler: a grid may have 100000 steps.
    """
    with_label: list[bool] = []

    def record_labels(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        with_label.extend([False] * len(x_t) if y is None else (y >= 0).tolist())
        return _zeros(x_t, t, y)

    guidance = recipe.guidance.counted_as()
    if needs_classifier(guidance):
        guidance = guidance.with_classifier(lambda x_t, t: x_t.flatten(1).sum(1, keepdim=True))
    denoise = recipe.threshold(guidance(record_labels, schedule), schedule)
    with torch.no_grad():
        denoise(torch.zeros(len(times), 1, 1, 1), times.float(), torch.zeros(len(times), dtype=torch.long))
    return with_label
