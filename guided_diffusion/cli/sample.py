"""Samples from a trained diffusion model: what ``python -m guided_diffusion.sample`` does."""

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer
from torch import Tensor

from guided_diffusion.checkpoints.loading import TrainedDiffusion
from guided_diffusion.cli.checks import check_label_dropout, check_output_folders, check_space
from guided_diffusion.cli.config import SampleConfig
from guided_diffusion.cli.provenance import write_record
from guided_diffusion.cli.restore import prepare
from guided_diffusion.evaluation.chunks import Chunks, EvaluationProgress, draw, sampling_lock
from guided_diffusion.evaluation.modalities import Gallery, modality
from guided_diffusion.evaluation.plan import Plan, sampling_fingerprint
from guided_diffusion.evaluation.plots.image_grid import check_video_encoder, save_animation
from guided_diffusion.recipe import Recipe, eval_mode
from guided_diffusion.samplers import Step
from guided_diffusion.training.trainer import build_trainer, check_not_sharded
from guided_diffusion.utils.distributed import rank_zero_print
from guided_diffusion.utils.failures import keeping
from guided_diffusion.utils.files import atomic_write, cache_dir
from guided_diffusion.utils.memory import explain_out_of_memory
from guided_diffusion.utils.progress import progress_bar

T = TypeVar("T")
QUIET_SECONDS = 2
"""The seconds before a progress bar appears."""


def run(config: DictConfig) -> None:
    """Sample into the folder that Hydra has chosen."""
    config.output_dir = HydraConfig.get().runtime.output_dir
    output_dir = sample(config, HydraConfig.get().overrides.task)
    rank_zero_print(f"Samples are in {output_dir}")


def sample(config: DictConfig, overrides: Sequence[str] = ()) -> Path:
    """Write ``samples.png`` and ``samples.npz`` and return their folder.

    ``compare`` adds ``unguided.png`` and ``unguided.npz``, from the same labels and the same noise, and ``labels.txt``;
    ``animate`` adds an animation from noise to samples.

    Recipe settings that the command line's ``overrides`` leave open are those of the training.

    Raises:
        ValueError, FileNotFoundError: For a wrong config or checkpoint, before anything is written.
    """
    model, recipe = prepare(config, overrides, SampleConfig)
    classes = _classes(config.labels, model)
    gallery = modality(model.kind).gallery(model.data)
    num_samples = gallery.num_samples if config.num_samples is None else config.num_samples
    if not config.untaught_scales:
        check_label_dropout(model.label_dropout, recipe, [config.guidance.scale], model.schedule, "guidance.scale")
    scales, size = [float(recipe.guidance.scale)], recipe.batch_size
    plan = Plan(scales, num_samples, len(classes), model.shape, size, config.seed, classes)
    check_output_folders(Path(config.output_dir))
    check_space(plan)
    if config.animate:
        check_video_encoder()
    trainer = build_trainer(config.trainer, [EvaluationProgress(QUIET_SECONDS)])
    check_not_sharded(trainer.strategy)

    with explain_out_of_memory("recipe.batch_size"):
        _sample(config, trainer, model, recipe, plan, gallery)
    if trainer.is_global_zero:
        OmegaConf.save(config, Path(config.output_dir) / "config.yaml", resolve=True)
        write_record(Path(config.output_dir), config.seed, trainer.strategy.root_device.type)
    return Path(config.output_dir)


def _sample(
    config: DictConfig, trainer: Trainer, model: TrainedDiffusion, recipe: Recipe, plan: Plan, gallery: Gallery
) -> None:
    """Write everything that ``sample`` promises."""
    output_dir, names = Path(config.output_dir), [model.class_names[label] for label in plan.classes or ()]
    recipes = {"samples": recipe}
    if config.compare:
        recipes["unguided"] = replace(recipe, guidance=recipe.guidance.unguided())
    for name, one in recipes.items():
        at_scale = replace(plan, scales=[float(one.guidance.scale)])
        folder = cache_dir() / "samples" / sampling_fingerprint(config, at_scale)
        chunks = Chunks(model.denoiser, one, at_scale, folder)
        with sampling_lock(folder):
            draw(trainer, chunks)
            if trainer.is_global_zero:
                ((samples,), _) = chunks.collect([1.0])
                _write(output_dir / name, samples.samples, plan.labels, names, gallery)
                shutil.rmtree(folder)
        trainer.strategy.barrier()
    if trainer.is_global_zero and config.compare:
        rows = plan.labels.unflatten(0, (len(names), -1)).tolist()
        lines = (f"{name}: {' '.join(map(str, row))}\n" for name, row in zip(names, rows, strict=True))
        (output_dir / "labels.txt").write_text("".join(lines), encoding="utf-8")
    if trainer.is_global_zero and config.animate:
        model.denoiser.to(trainer.strategy.root_device)
        _animate(config, model, recipe, plan, gallery, names)


def _animate(
    config: DictConfig, model: TrainedDiffusion, recipe: Recipe, plan: Plan, gallery: Gallery, names: Sequence[str]
) -> None:
    """Write an animation of the first samples of each class, from noise to sample."""
    indices = torch.arange(len(plan.labels)).unflatten(0, (len(names), -1))
    first = indices[:, : gallery.animated(len(names))].flatten()
    steps = _steps(recipe, model, plan.labels[first], first.tolist(), config.seed)
    frames = list(_with_progress(gallery.frames(steps, names), "rendering", len(steps)))
    with keeping(f"the animation is missing, the samples are in {config.output_dir}"):
        save_animation(frames, Path(config.output_dir) / "animation")


def _write(path: Path, images: Tensor, labels: Tensor, names: Sequence[str], gallery: Gallery) -> None:
    """Write all samples with their labels as arrays, then those of each class as a picture."""
    with atomic_write(path.with_suffix(".npz")) as temporary:
        np.savez_compressed(temporary, images=images.numpy(), labels=labels.numpy())
    with keeping(f"the picture is missing, the samples are in {path.with_suffix('.npz')}"):
        gallery.save(images.unflatten(0, (len(names), -1)), names, path.with_suffix(".png"))


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
    """Return each step from noise to samples."""
    steps = recipe.steps(model.denoiser, labels, model.shape, indices, seed)
    with eval_mode(model.denoiser):
        return list(_with_progress(steps, "sampling", recipe.sampler.steps))


def _with_progress(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """Return the items with a progress bar that appears if they take long."""
    return progress_bar(items, desc=what, total=total, leave=False, delay=QUIET_SECONDS)
