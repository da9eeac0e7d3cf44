"""The number of network evaluations that a sample takes."""

import torch
from torch import Tensor

from guided_diffusion.denoisers import Labels, Prediction
from guided_diffusion.guidance import needs_classifier
from guided_diffusion.recipe import Recipe
from guided_diffusion.schedules import Schedule


def evaluations_per_sample(recipe: Recipe, schedule: Schedule) -> float:
    """Return how often the denoiser is evaluated for a sample; evaluations of a classifier are not counted."""
    return float(len(predictions_needed(recipe, schedule)))


def labels_needed(recipe: Recipe, schedule: Schedule) -> set[bool]:
    """Return whether the model predicts with the label (True), without it (False), or both."""
    return set(predictions_needed(recipe, schedule))


def predictions_needed(recipe: Recipe, schedule: Schedule) -> list[bool]:
    """Sample once with a model of zeros; return for each of its predictions, in order, whether it has the label."""
    asked: list[bool] = []

    def nothing(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        asked.extend([False] * len(x_t) if y is None else (y >= 0).tolist())
        return Prediction(torch.zeros_like(x_t), torch.zeros_like(x_t))

    guidance = recipe.guidance
    if needs_classifier(guidance):
        guidance = guidance.with_classifier(lambda x_t, t: x_t.flatten(1).sum(1, keepdim=True))
    denoise = recipe.threshold(guidance(nothing, schedule), schedule)
    noise, label = torch.zeros(1, 1, 1, 1), torch.zeros(1, dtype=torch.long)
    with torch.no_grad():
        for _ in recipe.sampler(denoise, schedule, noise, label, torch.zeros):
            pass
    return asked
