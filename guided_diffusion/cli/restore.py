"""The start of sampling and evaluating: the trained model of a checkpoint and a recipe for its samples."""

from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig, OmegaConf

from guided_diffusion.checkpoints.compatibility import check_guidance
from guided_diffusion.checkpoints.files import LAST
from guided_diffusion.checkpoints.guidance_config import (
    expand_paths,
    guidance_needs_weak,
    guidance_wants_guide,
    weak_checkpoint,
)
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
from guided_diffusion.schedules import expand_as
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
    _check_weak_is_another(config)
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


def _check_weak_is_another(config: DictConfig) -> None:
    """Raise ``ValueError`` if the weaker model of the guidance is the model itself, so that no scale has an effect."""
    weak = weak_checkpoint(config.guidance) if guidance_needs_weak(config.guidance) else None
    if weak and config.weights == "ema" and Path(weak).samefile(config.checkpoint):
        raise ValueError(f"guidance.weak: {weak} is the model itself: name a smaller or less trained one")


def check_guidance_suits(guidance: Guidance, model: TrainedDiffusion) -> None:
    """Evaluate two samples: raise ``DoesNotSuit`` if the guidance refuses the model.

    Raise ``ValueError`` if it returns a prediction of another sample than it was given.
    """
    x = torch.randn(2, *model.shape, generator=torch.Generator().manual_seed(0))
    t = torch.full((2,), 0.5)
    walk = Walk(torch.tensor([0.5, 0.4], dtype=torch.float64))
    next(iter(walk))
    try:
        with torch.no_grad(), eval_mode(model.denoiser):
            guided = begin(guidance(model.denoiser, model.schedule), walk)
            found = guided(x, t, torch.tensor([0, model.num_classes - 1]))
    except ValueError as error:
        raise DoesNotSuit(str(error)) from error
    alpha, sigma = (expand_as(value, x) for value in model.schedule(t))
    tolerance = 1e-2 * (1 + found.x0.abs().max() + found.eps.abs().max())
    if getattr(guidance, "keeps_identity", True) and (alpha * found.x0 + sigma * found.eps - x).abs().max() > tolerance:
        raise ValueError(
            f"guidance: the predictions of {type(guidance).__name__} are wrong, as alpha x0 + sigma eps is not x_t: "
            "change x0 and eps together, for instance by shift_x0"
        )
