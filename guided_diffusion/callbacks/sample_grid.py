"""A grid of samples: what guidance does, at a glance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pytorch_lightning import Trainer

from guided_diffusion.callbacks.loggers import log_image
from guided_diffusion.callbacks.sampling import SamplingCallback
from guided_diffusion.data import ImageDataModule
from guided_diffusion.modules import DiffusionModule
from guided_diffusion.plots import save_labelled_grid
from guided_diffusion.sampling import Recipe


class SampleGrid(SamplingCallback):
    """Writes ``samples/step_N.png``: a row for every scale, a column for every class, one noise down each column.

    Args:
        recipe: how samples are made; its guidance's scale is replaced by each of ``scales``.
        scales: of guidance, one for each row.
        output_dir: of the run.
        every_n_steps: optimizer steps between two grids; 0 for the end alone.
        max_classes: columns at the most.
        seed: of the noise.

    Raises:
        ValueError: if there are no scales.
    """

    def __init__(
        self,
        recipe: Recipe,
        scales: Sequence[float],
        output_dir: str,
        every_n_steps: int = 0,
        max_classes: int = 20,
        seed: int = 0,
    ) -> None:
        super().__init__(output_dir, every_n_steps)
        if not scales:
            raise ValueError("scales must hold at least one number")
        self.recipe = recipe
        self.scales = list(scales)
        self.max_classes = max_classes
        self.seed = seed

    def sample(self, trainer: Trainer, module: DiffusionModule) -> None:
        data: ImageDataModule = trainer.datamodule  # type: ignore[attr-defined]
        class_names = data.class_names[: self.max_classes]
        images = self.recipe.sweep(
            module.denoiser, torch.arange(len(class_names)), data.shape, self.scales, seed=self.seed
        )
        path = self.output_dir / "samples" / f"step_{trainer.global_step:06d}.png"
        save_labelled_grid(images, path, rows=[f"w = {scale:g}" for scale in self.scales], columns=class_names)
        log_image(trainer, "samples/grid", path)
