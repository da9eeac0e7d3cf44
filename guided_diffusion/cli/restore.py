"""The start of sampling and evaluating: the trained model of a checkpoint and a recipe for its samples."""

from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from guided_diffusion.checkpoints.compatibility import check_guidance
from guided_diffusion.checkpoints.files import LAST
from guided_diffusion.checkpoints.guidance_config import expand_paths, guidance_wants_guide
from guided_diffusion.checkpoints.loading import TrainedDiffusion, load
from guided_diffusion.checkpoints.record import check_targets
from guided_diffusion.cli.checks import (
    check_guide_is_used,
    check_no_key_replaces_another,
    check_other_models_guide,
    check_recipe,
    check_seed,
)
from guided_diffusion.cli.config import plain, trust_packages, use_recipe_of_training
from guided_diffusion.cli.guide import guide_of_model
from guided_diffusion.cli.validation import check_config
from guided_diffusion.guidance import Guidance
from guided_diffusion.recipe import Recipe, eval_mode
from guided_diffusion.samplers import Walk, begin
from guided_diffusion.utils.instantiate import build
from guided_diffusion.utils.precision import check_precision
from guided_diffusion.utils.validation import DoesNotSuit

HOLDS = {
    "guide": ("guided_diffusion.losses", "guided_diffusion.training.guide"),
    "judge": ("guided_diffusion.evaluation.judge",),
}
"""The modules whose classes these nodes of a checkpoint may name, besides those of a model."""


def prepare(config: DictConfig, overrides: Sequence[str], schema: type) -> tuple[TrainedDiffusion, Recipe]:
    """Return the model of ``checkpoint`` and a recipe for it; put the recipe of its training into ``config``.

    Recipe settings that the command line's ``overrides`` leave open are those of the training.
    ``schema`` is the dataclass with the keys of the program.

    Raises:
        ValueError, FileNotFoundError: For a wrong config or checkpoint.
    """
    if not config.checkpoint:
        raise ValueError("checkpoint is missing: add checkpoint=PATH, for instance outputs/.../checkpoints/last.ckpt")
    if (Path(config.output_dir) / LAST.parent).is_dir():
        raise ValueError(f"output_dir: {config.output_dir} is the folder of a training, to be kept: choose another")
    check_seed(config.seed)
    check_no_key_replaces_another(overrides)
    model = load(config.checkpoint, weights=config.weights, trusted=config.trusted)
    use_recipe_of_training(config, model.config, overrides)
    check_other_models_guide(overrides, config.guidance)
    _check_guide_and_judge_are_trusted(config)
    expand_paths(config.guidance)
    check_guide_is_used(overrides, config.guidance)
    trust_packages(config)
    check_precision(config.trainer.get("precision"))
    check_config(plain(config), schema)
    check_guidance(config.guidance, model.spec, config.trusted)
    guide_of_model(config, model)
    recipe: Recipe = build(config.recipe)
    check_recipe(recipe, model.schedule)
    if not guidance_wants_guide(config.guidance):
        check_guidance_suits(recipe.guidance, model)
    return model, recipe


def _check_guide_and_judge_are_trusted(config: DictConfig) -> None:
    """Raise ``ValueError`` if one of these nodes, maybe the checkpoint's, names what no trusted package defines."""
    for name in HOLDS.keys() & config.keys():
        node = OmegaConf.to_container(config[name], resolve=True)
        check_targets(node, (*config.trusted, *HOLDS[name]), Path(config.checkpoint))


def check_guidance_suits(guidance: Guidance, model: TrainedDiffusion) -> None:
    """Raise ``DoesNotSuit`` if the guidance refuses the model, in one evaluation of two samples."""
    x, t = torch.zeros(2, *model.shape), torch.full((2,), 0.5)
    walk = Walk(torch.tensor([0.5, 0.4], dtype=torch.float64))
    next(iter(walk))
    try:
        with torch.no_grad(), eval_mode(model.denoiser):
            begin(guidance(model.denoiser, model.schedule), walk)(x, t, torch.tensor([0, model.num_classes - 1]))
    except ValueError as error:
        raise DoesNotSuit(str(error)) from error
