"""Samples from a trained diffusion model: what ``python -m guided_diffusion.sample`` does."""

import math
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, ListConfig, OmegaConf
from pytorch_lightning import Trainer
from torch import Tensor

from guided_diffusion.checkpoints.loading import TrainedDiffusion
from guided_diffusion.cli.checks import check_label_dropout, check_output_folders, check_scales, check_space
from guided_diffusion.cli.config import SampleConfig
from guided_diffusion.cli.guide import with_guide
from guided_diffusion.cli.labels import class_numbers, labels_of_images
from guided_diffusion.cli.own_folder import check_own_folder
from guided_diffusion.cli.provenance import write_record
from guided_diffusion.cli.restore import prepare
from guided_diffusion.cli.source import Source, check_source, read_source
from guided_diffusion.evaluation.chunks import Chunks, EvaluationProgress, draw, sampling_lock
from guided_diffusion.evaluation.cost import check_first_step
from guided_diffusion.evaluation.modalities import Gallery, modality
from guided_diffusion.evaluation.plan import LabelledSamples, Plan, sampling_fingerprint
from guided_diffusion.evaluation.plots.image_grid import check_video_encoder, save_animation
from guided_diffusion.recipe import FromNoise, Recipe, Start, eval_mode
from guided_diffusion.samplers import Step, times_from
from guided_diffusion.training.trainer import build_trainer, check_not_sharded
from guided_diffusion.utils.distributed import rank_zero_print
from guided_diffusion.utils.failures import keeping
from guided_diffusion.utils.files import atomic_write, cache_dir
from guided_diffusion.utils.memory import explain_out_of_memory
from guided_diffusion.utils.progress import progress_bar

T = TypeVar("T")
QUIET_SECONDS = 2
"""The seconds before a progress bar appears."""
MAX_FRAMES = 250
"""The largest number of frames of an animation before the last one; if there are more steps, it shows every k-th."""
MAX_ANIMATED = 20
"""The largest number of classes or images in an animation, which shows the first ones."""


def run(config: DictConfig) -> None:
    """Sample into the folder that Hydra has chosen."""
    config.output_dir = HydraConfig.get().runtime.output_dir
    output_dir = sample(config, HydraConfig.get().overrides.task)
    rank_zero_print(f"Samples are in {output_dir}")


def sample(config: DictConfig, overrides: Sequence[str] = ()) -> Path:
    """Write ``samples.png`` and ``samples.npz`` and return their folder.

    ``compare`` adds ``unguided.png`` and ``unguided.npz``, from the same labels and the same noise, and ``labels.txt``;
    ``animate`` adds an animation from noise to samples. With several scales in ``guidance.scale`` the picture and the
    arrays have all of them, from the same labels and noise. With ``from`` sampling starts from given images or points.
    Recipe settings that the command line's ``overrides`` leave open are those of the training.

    Raises:
        ValueError, FileNotFoundError: For a wrong config or checkpoint, before anything is written.
    """
    check_source(config)
    scales = _take_scales(config)
    model, recipe = prepare(config, overrides, SampleConfig)
    if config.invert:
        check_first_step(recipe, model.schedule, reverse=True)
    scales = scales or [float(recipe.guidance.scale)]
    if not config.untaught_scales:
        check_label_dropout(model.label_dropout, recipe, scales, model.schedule, "guidance.scale")
    gallery = modality(model.kind).gallery(model.data)
    source, classes, own_classes = _rows(config, model)
    default = 1 if source else gallery.num_samples
    num_samples = default if config.num_samples is None else config.num_samples
    plan = Plan(scales, num_samples, len(classes), model.shape, recipe.batch_size, config.seed, classes)
    check_own_folder(Path(config.output_dir), "sampling")
    check_output_folders(Path(config.output_dir))
    check_space(plan, at_once=2 if config.compare else 1)
    if config.animate:
        check_video_encoder()
    trainer = build_trainer(config.trainer, [EvaluationProgress(QUIET_SECONDS)])
    check_not_sharded(trainer.strategy)
    recipe = with_guide(config, model, recipe, model.data)
    with explain_out_of_memory("recipe.batch_size"):
        _Session(config, trainer, model, recipe, plan, gallery, source, own_classes).write()
    if trainer.is_global_zero:
        if len(scales) > 1:
            config.guidance.scale = scales
        OmegaConf.save(config, Path(config.output_dir) / "config.yaml", resolve=True)
        write_record(Path(config.output_dir), config.seed, trainer.strategy.root_device.type)
    return Path(config.output_dir)


def _take_scales(config: DictConfig) -> list[float] | None:
    """Return the scales of ``guidance.scale=[...]`` and leave the first in ``config``; ``None`` if it is no list."""
    given = config.guidance.get("scale")
    if not isinstance(given, ListConfig):
        return None
    try:
        scales = [float(scale) for scale in given]
    except (TypeError, ValueError) as error:
        raise ValueError(f"guidance.scale must be a number or a list of numbers, got {list(given)}") from error
    check_scales(scales, "guidance.scale")
    if len(set(scales)) < len(scales):
        raise ValueError(f"guidance.scale must hold different numbers, got {list(given)}")
    for key in ("animate", "invert"):
        if config[key] and len(scales) > 1:
            raise ValueError(f"{key}=true takes one guidance.scale, got {list(given)}")
    config.guidance.scale = scales[0]
    return scales


def _rows(config: DictConfig, model: TrainedDiffusion) -> tuple[Source | None, list[int], list[int]]:
    """Return what sampling starts from, the class of each row of the picture, and the class of each given image."""
    labels, own = (
        None if config[key] is None else class_numbers(config[key], model.class_names, key)
        for key in ("labels", "from_labels")
    )
    everything = list(range(model.num_classes))
    source = read_source(config, model.shape)
    if source is None:
        return None, labels or everything, []
    if len(source.samples) == 1 and not config.invert:  # one image, of every class that is asked for
        if not labels:
            labels = labels_of_images(None, source, model.num_classes) if source.labels else everything
        source = source.repeated(len(labels))
    classes = labels_of_images(labels, source, model.num_classes)
    return source, classes, labels_of_images(own, source, model.num_classes, "from_labels") if own else classes


@dataclass(frozen=True)
class _Session:
    """The settings and objects with which one call of ``sample`` draws and writes its samples."""

    config: DictConfig
    trainer: Trainer
    model: TrainedDiffusion
    recipe: Recipe
    plan: Plan
    gallery: Gallery
    source: Source | None
    own_classes: Sequence[int]
    """The class of each given image, under which it is inverted."""

    @property
    def class_names(self) -> list[str]:
        """The name of the class of each row."""
        return [self.model.class_names[label] for label in self.plan.classes or ()]

    def write(self) -> None:
        """Write everything that ``sample`` promises."""
        start, found = self._start()
        recipes = {"samples": self.recipe}
        if self.config.compare:
            recipes["unguided"] = replace(self.recipe, guidance=self.recipe.guidance.unguided())
        for name, recipe in recipes.items():
            scales = self.plan.scales if name == "samples" else [float(recipe.guidance.scale)]
            plan = replace(self.plan, scales=scales)
            with self._drawn(recipe, plan, start, name) as drawn:
                if self.trainer.is_global_zero:
                    self._write(Path(self.config.output_dir) / name, drawn, plan, found)
        if self.trainer.is_global_zero and self.config.compare:
            self._write_labels()
        if self.trainer.is_global_zero and self.config.animate:
            self.model.denoiser.to(self.trainer.strategy.root_device)
            self._animate(start)

    @contextmanager
    def _drawn(self, recipe: Recipe, plan: Plan, start: Start | None, what: str) -> Iterator[Sequence[LabelledSamples]]:
        """Draw samples and yield those of each scale; what the cache holds of them is removed after the block."""
        given: list[Any] = [what]
        if self.source:
            given += [[self.config.strength, self.config.invert, list(self.own_classes)], *self.source.files]
        folder = cache_dir() / "samples" / sampling_fingerprint(self.config, plan, *given)
        chunks = Chunks(self.model.denoiser, recipe, plan, folder, start)
        chunks.costs = [float(recipe.sampler.steps)] * len(plan.scales)  # the progress bar counts steps
        with sampling_lock(folder):
            draw(self.trainer, chunks)
            yield chunks.collect(chunks.costs)[0]
            self.trainer.strategy.barrier()
            if self.trainer.is_global_zero:
                shutil.rmtree(folder)
        self.trainer.strategy.barrier()

    def _start(self) -> tuple[Start | None, dict[str, Tensor]]:
        """Return what sampling starts from, and the noise of the given images if they are inverted."""
        if self.source is None:
            return None, {}
        start = self.source.start(self.config, self.plan.num_samples)
        if not self.config.invert:
            self._print_steps()
            return start, {}
        with self._drawn(self.recipe, replace(self.plan, classes=self.own_classes), start, "inverted") as (drawn,):
            noise = drawn.samples
        return FromNoise(noise), {"inverted": noise}

    def _print_steps(self) -> None:
        strength, sampler = self.config.strength, self.recipe.sampler
        if strength is not None:
            left = len(times_from(strength, sampler.times(self.model.schedule, sampler.steps))) - 1
            rank_zero_print(f"strength={strength:g}: sampling starts at t = {strength:g}, for {left} steps")

    def _write(self, path: Path, drawn: Sequence[LabelledSamples], plan: Plan, found: Mapping[str, Tensor]) -> None:
        """Write all samples with their labels as arrays, then a picture of the samples of each class or image."""
        samples = torch.stack([of_scale.samples for of_scale in drawn])
        arrays = {"images": samples[0], "labels": plan.labels, **found}
        if len(drawn) > 1:
            arrays |= {"images": samples, "scales": torch.tensor(plan.scales)}
        with atomic_write(path.with_suffix(".npz")) as temporary:
            np.savez_compressed(temporary, **{name: array.numpy() for name, array in arrays.items()})  # type: ignore[arg-type]
        with keeping(f"the picture is missing, the samples are in {path.with_suffix('.npz')}"):
            self._draw(path.with_suffix(".png"), samples, plan, found)
        if self.source and self.config.invert:
            self._print_error(samples[0], self.source.samples)

    def _draw(self, picture: Path, samples: Tensor, plan: Plan, found: Mapping[str, Tensor]) -> None:
        """Write a picture of samples of shape (scales, samples, *shape)."""
        rows = samples.unflatten(1, (len(self.class_names), -1))
        titles = [f"w = {scale:g}" for scale in plan.scales]
        if self.source:
            names = self.source.titles(self.class_names)
            noise = {name: array[:, None] for name, array in found.items()}
            again = ["samples"] if len(titles) == 1 else titles
            stages = {"from": self.source.shown()[:, None], **noise, **dict(zip(again, rows, strict=True))}
            self.gallery.save_stages(stages, names, picture)
        elif len(samples) > 1:
            self.gallery.save_by_scale(rows, titles, self.class_names, picture)
        else:
            self.gallery.save(rows[0], self.class_names, picture)

    def _print_error(self, again: Tensor, given: Tensor) -> None:
        """Print how far the reconstructions are from the given samples, unless they are drawn as another class."""
        if list(self.own_classes) == list(self.plan.classes or ()):
            error = (again - given).double()
            rank_zero_print(
                f"Reconstruction error: root mean square {error.square().mean().sqrt():.3g}, "
                f"largest {error.abs().max():.3g} (samples are in [-1, 1])"
            )

    def _write_labels(self) -> None:
        rows = self.plan.labels.unflatten(0, (len(self.class_names), -1)).tolist()
        lines = (f"{name}: {' '.join(map(str, row))}\n" for name, row in zip(self.class_names, rows, strict=True))
        (Path(self.config.output_dir) / "labels.txt").write_text("".join(lines), encoding="utf-8")

    def _animate(self, start: Start | None) -> None:
        """Write an animation of the first samples of each class, from noise to sample."""
        names = self.class_names[:MAX_ANIMATED]
        indices = torch.arange(len(self.plan.labels)).unflatten(0, (len(self.class_names), -1))[: len(names)]
        first = indices[:, : self.gallery.animated(len(names))].flatten()
        steps = self._steps(self.plan.labels[first], first.tolist(), start[first] if start else None)
        frames = list(_with_progress(self.gallery.frames(steps, names), "rendering", len(steps)))
        with keeping(f"the animation is missing, the samples are in {self.config.output_dir}"):
            save_animation(frames, Path(self.config.output_dir) / "animation")

    @torch.no_grad()
    def _steps(self, labels: Tensor, indices: list[int], start: Start | None) -> list[Step]:
        """Return the steps from noise to samples that an animation shows, the last one included."""
        total = self.recipe.sampler.steps
        every, kept = math.ceil(total / MAX_FRAMES), []
        steps = self.recipe.steps(self.model.denoiser, labels, self.model.shape, indices, self.config.seed, start)
        with eval_mode(self.model.denoiser):
            for number, step in enumerate(_with_progress(steps, "sampling", total), 1):
                if number % every == 0:
                    kept.append(step)
        return kept if kept and kept[-1] is step else [*kept, step]


def _with_progress(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """Return the items with a progress bar that appears if they take long."""
    return progress_bar(items, desc=what, total=total, leave=False, delay=QUIET_SECONDS)
