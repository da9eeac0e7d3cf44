"""The accuracy of samples, across scales of guidance."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from typing import Any

import torch
from pytorch_lightning import Trainer
from torchmetrics.functional.classification import multiclass_accuracy

from guided_diffusion.data import ImageDataModule
from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.evaluation.plots.curves import save_accuracy_plot
from guided_diffusion.recipe import Recipe
from guided_diffusion.training.callbacks.base import SamplingCallback, Sweep
from guided_diffusion.training.loggers.log import log_curve, log_image
from guided_diffusion.utils.files import atomic_write
from guided_diffusion.utils.validation import check_positive

COLUMNS = ("scale", "accuracy", "num_samples", "judge_ceiling")


class AccuracyByScale(SamplingCallback):
    """Writes ``accuracy_by_scale.csv`` and its plot: the share of samples in which the judge sees their label.

    Every scale has the same labels, evenly over the classes, and the same noise; all scales go through the
    network together.

    Args:
        recipe, scales, output_dir, every_n_steps, seed, guide: as for ``SamplingCallback``.
        judge: gives the judge for a DataModule.
        num_samples: for every scale.

    Raises:
        ValueError: if there are no samples.
    """

    kind = "images"

    def __init__(
        self,
        recipe: Recipe,
        scales: Sequence[float],
        judge: Callable[[ImageDataModule], Judge],
        output_dir: str,
        every_n_steps: int = 0,
        seed: int = 0,
        guide: str | None = None,
        num_samples: int = 500,
    ) -> None:
        super().__init__(recipe, scales, output_dir, every_n_steps, seed, guide)
        check_positive(num_samples=num_samples)
        self.judge_source = judge
        self.num_samples = num_samples

    def sample(self, trainer: Trainer, sweep: Sweep, data: Any) -> None:
        judge = self.judge_source(data)
        labels = torch.arange(self.num_samples) % data.num_classes
        images = sweep(labels)
        accuracies = [
            multiclass_accuracy(judge.classify(row), labels, data.num_classes, average="micro").item() for row in images
        ]
        self._write(accuracies, judge)
        self._print(accuracies, judge)
        log_curve(trainer, "guidance/accuracy", self.scales, accuracies)
        log_image(trainer, "guidance/accuracy_by_scale", self.output_dir / "accuracy_by_scale.png")

    def _write(self, accuracies: Sequence[float], judge: Judge) -> None:
        with atomic_write(self.output_dir / "accuracy_by_scale.csv") as path, path.open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(COLUMNS)
            for scale, accuracy in zip(self.scales, accuracies, strict=True):
                rows.writerow([f"{scale:g}", f"{accuracy:.6f}", self.num_samples, f"{judge.ceiling:.6f}"])
        points = list(zip(self.scales, accuracies, strict=True))
        save_accuracy_plot({"samples": points}, judge.ceiling, self.output_dir / "accuracy_by_scale.png")

    def _print(self, accuracies: Sequence[float], judge: Judge) -> None:
        print(f"\njudge accuracy over {self.num_samples} samples; on real test images {judge.ceiling:.1%}")
        for scale, accuracy in zip(self.scales, accuracies, strict=True):
            print(f"  w = {scale:<5g} {accuracy:7.1%}")
