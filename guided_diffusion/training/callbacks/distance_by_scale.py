"""The distance of sampled points to their curve, across scales of guidance."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from typing import Any

import torch
from pytorch_lightning import Trainer
from torch import Tensor

from guided_diffusion.evaluation.metrics.points import TOLERANCE, distances_to_own
from guided_diffusion.evaluation.plots.curves import save_share_plot
from guided_diffusion.recipe import Recipe
from guided_diffusion.training.callbacks.base import SamplingCallback, Sweep
from guided_diffusion.training.loggers.log import log_curve, log_image
from guided_diffusion.utils.files import atomic_write
from guided_diffusion.utils.rng import generator_for
from guided_diffusion.utils.validation import check_positive

COLUMNS = ("scale", "distance_mean", "distance_p95", "off_curve", "num_samples", "off_curve_floor")


class DistanceByScale(SamplingCallback):
    """Writes ``distance_by_scale.csv`` and its plot: how far samples are from the curve of their label.

    Every scale has the same labels, evenly over the classes, and the same noise; all scales go through the
    network together. ``off_curve`` is the share of points further than 0.05, ``off_curve_floor`` that of true points.

    Args:
        recipe, scales, output_dir, every_n_steps, seed, guide: as for ``SamplingCallback``.
        num_samples: for every scale.

    Raises:
        ValueError: if there are no samples.
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
        num_samples: int = 3000,
    ) -> None:
        super().__init__(recipe, scales, output_dir, every_n_steps, seed, guide)
        check_positive(num_samples=num_samples)
        self.num_samples = num_samples

    def sample(self, trainer: Trainer, sweep: Sweep, data: Any) -> None:
        labels = torch.arange(self.num_samples) % data.num_classes
        distances = [distances_to_own(points, labels, data.patterns) for points in sweep(labels)]
        true = [pattern.generate(5000, generator_for("cpu", self.seed, 1)) for pattern in data.patterns]
        floor = _off(torch.cat([pattern.distance(one) for pattern, one in zip(data.patterns, true, strict=True)]))
        self._write(distances, floor)
        self._print(distances, floor)
        log_curve(trainer, "guidance/distance_mean", self.scales, [one.mean().item() for one in distances])
        log_curve(trainer, "guidance/off_curve", self.scales, [_off(one) for one in distances])
        log_image(trainer, "guidance/distance_by_scale", self.output_dir / "distance_by_scale.png")

    def _write(self, distances: Sequence[Tensor], floor: float) -> None:
        with atomic_write(self.output_dir / "distance_by_scale.csv") as path, path.open("w", newline="") as file:
            rows = csv.writer(file, lineterminator="\n")
            rows.writerow(COLUMNS)
            for scale, one in zip(self.scales, distances, strict=True):
                values = one.mean().item(), one.quantile(0.95).item(), _off(one)
                rows.writerow([f"{scale:g}", *(f"{value:.6f}" for value in values), self.num_samples, f"{floor:.6f}"])
        points = [(scale, _off(one)) for scale, one in zip(self.scales, distances, strict=True)]
        save_share_plot(
            {"samples": points},
            floor,
            self.output_dir / "distance_by_scale.png",
            quantity=f"further than {TOLERANCE} from the curve",
            real="true points",
        )

    def _print(self, distances: Sequence[Tensor], floor: float) -> None:
        print(
            f"\nshare of {self.num_samples} samples within {TOLERANCE} of their curve; of true points {1 - floor:.1%}"
        )
        for scale, one in zip(self.scales, distances, strict=True):
            print(f"  w = {scale:<5g} {1 - _off(one):7.1%}   mean distance {one.mean():.4f}")


def _off(distances: Tensor) -> float:
    return (distances > TOLERANCE).double().mean().item()
