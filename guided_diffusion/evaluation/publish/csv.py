"""A logger of numbers, such as a CSV file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pytorch_lightning.loggers import Logger

from guided_diffusion.evaluation.publish.base import by_scale, points
from guided_diffusion.evaluation.results import Results


@dataclass(frozen=True)
class PlainDashboard:
    """One metric for each scale, and no pictures: they lie in the run's folder."""

    logger: Logger

    def picture(self, key: str, path: Path, step: int) -> None:
        pass

    def curve(self, key: str, points: Mapping[float, float], step: int) -> None:
        self.logger.log_metrics(by_scale(key, points), step)

    def results(self, results: Results, folder: Path) -> None:
        metrics: dict[str, float] = {}
        for point in points(results):
            for name, value in point.figures.items():
                metrics |= by_scale(point.key(name), {point.row.scale: value})
        self.logger.log_metrics(metrics, step=0)
        self.logger.save()

    def finish(self, status: int) -> None:
        self.logger.finalize("failed" if status else "success")
