"""A grid of scatters: what guidance does to points in the plane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Trainer

from guided_diffusion.evaluation.plots.scatter import LIMIT, densities_of, save_scatter_grid
from guided_diffusion.recipe import Recipe
from guided_diffusion.training.callbacks.base import SamplingCallback, Sweep
from guided_diffusion.training.loggers.log import log_image
from guided_diffusion.utils.validation import check_positive


class ScatterGrid(SamplingCallback):
    """Writes ``samples/step_N.png``: a row for every scale, a column for every class, over the density of the data.

    Args:
        recipe, scales, output_dir, every_n_steps, seed, guide: as for ``SamplingCallback``.
        num_samples: points in each panel.
    """

    kind = "points"

    def __init__(
        self,
        recipe: Recipe,
        scales: Sequence[float],
        output_dir: str,
        every_n_steps: int = 0,
        seed: int = 0,
        guide: str | None = None,
        num_samples: int = 500,
    ) -> None:
        super().__init__(recipe, scales, output_dir, every_n_steps, seed, guide)
        check_positive(num_samples=num_samples)
        self.num_samples = num_samples

    def sample(self, trainer: Trainer, sweep: Sweep, data: Any) -> None:
        classes = range(data.num_classes)
        points = sweep(torch.tensor(classes).repeat_interleave(self.num_samples)).unflatten(1, (len(classes), -1))
        path = self.output_dir / "samples" / f"step_{trainer.global_step:06d}.png"
        rows = [f"w = {scale:g}" for scale in self.scales]
        save_scatter_grid(points, densities_of(data.patterns, LIMIT), path, rows, data.class_names, own=classes)
        log_image(trainer, "samples/grid", path)
