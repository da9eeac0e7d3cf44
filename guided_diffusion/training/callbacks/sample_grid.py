"""A grid of samples: what guidance does, at a glance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pytorch_lightning import Trainer

from guided_diffusion.data import LabelledDataModule
from guided_diffusion.evaluation.plots.image_grid import save_labelled_grid
from guided_diffusion.recipe import Recipe
from guided_diffusion.training.callbacks.base import SamplingCallback, Sweep
from guided_diffusion.training.loggers.log import log_image
from guided_diffusion.utils.validation import check_positive


class SampleGrid(SamplingCallback):
    """Writes ``samples/step_N.png``: a row for every scale, a column for every class, one noise down each column.

    Args:
        recipe, scales, output_dir, every_n_steps, seed, guide: as for ``SamplingCallback``.
        max_classes: columns at the most.

    Raises:
        ValueError: unless ``max_classes`` is at least 1.
    """

    kind = "images"

    def __init__(
        self,
        recipe: Recipe,
        scales: Sequence[float],
        output_dir: str,
        every_n_steps: int = 0,
        seed: int = 0,
        guide: str | None = None,
        max_classes: int = 20,
    ) -> None:
        super().__init__(recipe, scales, output_dir, every_n_steps, seed, guide)
        check_positive(max_classes=max_classes)
        self.max_classes = max_classes

    def sample(self, trainer: Trainer, sweep: Sweep, data: LabelledDataModule) -> None:
        class_names = data.class_names[: self.max_classes]
        images = sweep(torch.arange(len(class_names)))
        path = self.output_dir / "samples" / f"step_{trainer.global_step:06d}.png"
        save_labelled_grid(images, path, rows=[f"w = {scale:g}" for scale in self.scales], columns=class_names)
        log_image(trainer, "samples/grid", path)
