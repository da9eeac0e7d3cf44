"""Sample from a trained diffusion model: ``python -m guided_diffusion.sample checkpoint=PATH labels=[3,7]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from tqdm import tqdm

from guided_diffusion.checkpoints import TrainedDiffusion, check_guidance, load
from guided_diffusion.config import build, use_recipe_of_training
from guided_diffusion.files import whole_file
from guided_diffusion.galleries import GALLERIES, Gallery
from guided_diffusion.plots import save_animation
from guided_diffusion.programs import program
from guided_diffusion.samplers import Step
from guided_diffusion.sampling import Recipe, evaluating

QUIET_SECONDS = 2
"""Of waiting before a progress bar appears."""


def sample(config: DictConfig, overrides: Sequence[str] = ()) -> Path:
    """Write ``samples.png`` and ``samples.npz``; return their folder.

    With ``compare`` also ``unguided.png`` and ``unguided.npz``, from the same labels and the same noise, and the
    labels as text; with ``animate`` the way from noise to sample.

    Args:
        config: what to sample, from which checkpoint.
        overrides: what the command line says; where it is silent, samples are made as in the training.

    Raises:
        ValueError, FileNotFoundError: for a wrong config or checkpoint, before anything is written.
    """
    if config.checkpoint is None:
        raise ValueError("checkpoint is missing: add checkpoint=PATH, for instance outputs/.../checkpoints/last.ckpt")
    if config.num_samples is not None and config.num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, got {config.num_samples}")
    device = config.device if config.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    model = load(config.checkpoint, device, config.weights)
    classes = _classes(config.labels, model)
    use_recipe_of_training(config, model.config, overrides)
    check_guidance(config.guidance, model.trait)
    recipe: Recipe = build(config.recipe)

    gallery = GALLERIES[model.kind](model)
    num_samples = gallery.num_samples if config.num_samples is None else config.num_samples
    labels = torch.tensor(classes).repeat_interleave(num_samples)
    names = [model.class_names[label] for label in classes]
    output_dir = Path(config.output_dir)
    recipes = {"samples": recipe}
    if config.compare:
        recipes["unguided"] = replace(recipe, guidance=recipe.guidance.unguided())
    for name, one in recipes.items():
        images = one.images(model.denoiser, labels, model.shape, seed=config.seed)
        _write(output_dir / name, images, labels, names, gallery)
    if config.compare:
        rows = labels.unflatten(0, (len(classes), -1)).tolist()
        lines = (f"{name}: {' '.join(map(str, row))}\n" for name, row in zip(names, rows, strict=True))
        (output_dir / "labels.txt").write_text("".join(lines))
    if config.animate:
        shown = torch.arange(len(labels)).unflatten(0, (len(classes), -1))
        rows = shown[:, : gallery.animated(len(classes))].flatten()
        steps = _steps(recipe, model, labels[rows], rows.tolist(), config.seed)
        frames = tqdm(gallery.frames(steps, names), "rendering", len(steps), leave=False, delay=QUIET_SECONDS)
        save_animation(list(frames), output_dir / "animation")
    OmegaConf.save(config, output_dir / "config.yaml", resolve=True)
    return output_dir


def _write(path: Path, images: Tensor, labels: Tensor, names: Sequence[str], gallery: Gallery) -> None:
    """A picture of each class, and the numbers."""
    gallery.save(images.unflatten(0, (len(names), -1)), names, path.with_suffix(".png"))
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
def _steps(recipe: Recipe, model: TrainedDiffusion, labels: Tensor, indices: list[int], seed: int) -> list[Step]:
    """Everything between noise and sample."""
    steps = recipe.steps(model.denoiser, labels, model.shape, indices, seed)
    with evaluating(model.denoiser):
        return list(tqdm(steps, "sampling", recipe.sampler.steps, leave=False, delay=QUIET_SECONDS))


def run(config: DictConfig) -> None:
    config.output_dir = HydraConfig.get().runtime.output_dir
    print(f"Samples are in {sample(config, HydraConfig.get().overrides.task)}")


main = program(run, "sample")

if __name__ == "__main__":
    sys.exit(main())
