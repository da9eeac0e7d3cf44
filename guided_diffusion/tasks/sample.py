"""Sample from a trained diffusion model: what ``python -m guided_diffusion.sample`` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from guided_diffusion.checkpoints import TrainedDiffusion, check_guidance, load
from guided_diffusion.checks import check_label_dropout, check_recipe, check_seed
from guided_diffusion.config import SampleConfig, build, use_recipe_of_training
from guided_diffusion.files import whole_file
from guided_diffusion.memory import naming_memory
from guided_diffusion.plots import grid, save_animation, save_labelled_grid
from guided_diffusion.record import write_record
from guided_diffusion.sampling import Recipe, evaluating
from guided_diffusion.signatures import check_config

ANIMATED_COLUMNS = 10


def sample(config: DictConfig, overrides: Sequence[str] = ()) -> Path:
    """Write ``samples.png`` and ``samples.npz``; return their folder.

    With ``compare`` also ``unguided.png`` and ``unguided.npz``, from the same labels and the same noise, and the
    labels as text; with ``animate`` the way from noise to image.

    Args:
        config: what to sample, from which checkpoint.
        overrides: what the command line says; where it is silent, samples are made as in the training.

    Raises:
        ValueError, FileNotFoundError: for a wrong config or checkpoint, before anything is written.
    """
    if config.checkpoint is None:
        raise ValueError("checkpoint is missing: add checkpoint=PATH, for instance outputs/.../checkpoints/last.ckpt")
    if config.num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {config.num_samples}")
    check_seed(config.seed)
    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    model = load(config.checkpoint, device, config.weights)
    classes = _classes(config.labels, model)
    use_recipe_of_training(config, model.config, overrides)
    check_guidance(config.guidance, model.trait)
    check_config(cast(dict[str, Any], OmegaConf.to_container(config, resolve=True)), SampleConfig)
    recipe: Recipe = build(config.recipe)
    check_recipe(recipe, model.schedule)
    if not config.untaught_scales:
        check_label_dropout(model.label_dropout, recipe, [config.guidance.scale], model.schedule, "guidance.scale")

    labels = torch.tensor(classes).repeat_interleave(config.num_samples)
    with naming_memory("recipe.batch_size"):
        _sample(config, model, recipe, labels, [model.class_names[label] for label in classes])
    OmegaConf.save(config, Path(config.output_dir) / "config.yaml", resolve=True)
    write_record(Path(config.output_dir), config.seed, device)
    return Path(config.output_dir)


def _sample(config: DictConfig, model: TrainedDiffusion, recipe: Recipe, labels: Tensor, names: list[str]) -> None:
    output_dir = Path(config.output_dir)
    recipes = {"samples": recipe}
    if config.compare:
        recipes["unguided"] = replace(recipe, guidance=recipe.guidance.unguided())
    for name, one in recipes.items():
        images = one.images(model.denoiser, labels, model.shape, seed=config.seed)
        _write(output_dir / name, images, labels, names)
    if config.compare:
        rows = labels.unflatten(0, (len(names), -1)).tolist()
        lines = (f"{name}: {' '.join(map(str, row))}\n" for name, row in zip(names, rows, strict=True))
        (output_dir / "labels.txt").write_text("".join(lines))
    if config.animate:
        shown = torch.arange(len(labels)).unflatten(0, (len(names), -1))
        rows = shown[:, : max(1, ANIMATED_COLUMNS // len(names))].flatten()
        frames = _frames(recipe, model, labels[rows], rows.tolist(), config.seed)
        save_animation(frames, output_dir / "animation")


def _write(path: Path, images: Tensor, labels: Tensor, names: Sequence[str]) -> None:
    """A picture with a row for each class, and the numbers."""
    rows = images.unflatten(0, (len(names), -1))
    save_labelled_grid(rows, path.with_suffix(".png"), rows=names, columns=[""] * rows.shape[1])
    with whole_file(path.with_suffix(".npz")) as temporary:
        np.savez_compressed(temporary, images=images.numpy(), labels=labels.numpy())


def _classes(labels: Sequence[int] | None, model: TrainedDiffusion) -> list[int]:
    if labels is None:
        return list(range(model.num_classes))
    wrong = [label for label in labels if not 0 <= label < model.num_classes]
    if wrong or not labels:
        names = ", ".join(f"{index} ({name})" for index, name in enumerate(model.class_names))
        raise ValueError(f"labels must be among {names}; got {wrong or 'none'}")
    return list(labels)


@torch.no_grad()
def _frames(recipe: Recipe, model: TrainedDiffusion, labels: Tensor, indices: list[int], seed: int) -> list[Tensor]:
    """x_t above the estimate of the clean image, after every step."""
    with evaluating(model.denoiser):
        return [
            grid(torch.cat([step.x, step.x0]).cpu(), columns=len(labels), min_size=56)
            for step in recipe.steps(model.denoiser, labels, model.shape, indices, seed)
        ]
