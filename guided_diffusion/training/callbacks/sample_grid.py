"""A callback that draws samples of every class at every guidance scale."""

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Trainer

from guided_diffusion.evaluation.modalities import modality
from guided_diffusion.recipe import Recipe
from guided_diffusion.training.callbacks.base import SamplingCallback, Sweep
from guided_diffusion.training.loggers.log import log_image
from guided_diffusion.utils.validation import check_positive


class SampleGrid(SamplingCallback):
    """A callback that writes ``samples/step_N.png``: a row for each scale and a column for each class.

    All scales have the same noise and labels. Points are drawn over the density of the data.

    Args:
        num_samples: The number of samples of each class and scale.
        max_classes: The largest number of classes that are shown, at least 1.

    Other arguments and errors are those of ``SamplingCallback``.
    """

    def __init__(
        self,
        recipe: Recipe,
        scales: Sequence[float],
        output_dir: str,
        every_n_steps: int = 0,
        seed: int = 0,
        guide: str | None = None,
        num_samples: int = 1,
        max_classes: int = 20,
        trusted: Sequence[str] = (),
    ) -> None:
        super().__init__(recipe, scales, output_dir, every_n_steps, seed, guide, num_samples, trusted)
        check_positive(max_classes=max_classes)
        self.max_classes = max_classes

    def sample(self, trainer: Trainer, sweep: Sweep, data: Any) -> None:
        """Draw the grid and log it as ``samples/grid``."""
        names = list(data.class_names[: self.max_classes])
        samples = sweep(torch.arange(len(names)).repeat_interleave(self.num_samples))
        path = self.output_dir / "samples" / f"step_{trainer.global_step:06d}.png"
        rows = [f"w = {scale:g}" for scale in self.scales]
        gallery = modality(data.kind).gallery(lambda: data)
        gallery.save_by_scale(samples.unflatten(1, (len(names), self.num_samples)), rows, names, path)
        log_image(trainer, "samples/grid", path)
