"""The number of network evaluations that a sample takes."""

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
    """Return for each prediction of the model, of which a sample needs many, whether it has the label."""
    return _predictions_at(_evaluation_times(recipe.sampler, schedule), recipe, schedule)


def check_first_step(recipe: Recipe, schedule: Schedule, reverse: bool = False) -> None:
    """Take one step with a model of zeros, which raises the errors of the sampler's settings.

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

    def note(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        times.append(t)
        return Prediction(x_t, x_t)

    steps = sampler(note, schedule, torch.zeros(1, 1, dtype=torch.float64), None, torch.zeros)
    for _ in progress_bar(steps, desc="counting evaluations", total=sampler.steps, leave=False, delay=2):
        pass
    return torch.cat(times)


def _predictions_at(times: Float[Tensor, " n"], recipe: Recipe, schedule: Schedule) -> list[bool]:
    """Return, for each prediction of the model that guidance needs at these times, whether it has the label.

    All times are one batch, which is much faster than a walk of the sampler: a grid may have 100000 steps.
    """
    asked: list[bool] = []

    def nothing(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        asked.extend([False] * len(x_t) if y is None else (y >= 0).tolist())
        return Prediction(torch.zeros_like(x_t), torch.zeros_like(x_t))

    guidance = recipe.guidance
    if needs_classifier(guidance):
        guidance = guidance.with_classifier(lambda x_t, t: x_t.flatten(1).sum(1, keepdim=True))
    denoise = recipe.threshold(guidance(nothing, schedule), schedule)
    with torch.no_grad():
        denoise(torch.zeros(len(times), 1, 1, 1), times.float(), torch.zeros(len(times), dtype=torch.long))
    return asked
