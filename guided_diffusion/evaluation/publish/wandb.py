"""W&B: curves against the scale, pictures, tables, charts, and the report as an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import WandbLogger

from guided_diffusion.evaluation.modalities import modality
from guided_diffusion.evaluation.publish.base import points
from guided_diffusion.evaluation.results import Results

SCALE = "guidance/scale"


SUMMARY = ("judge_ceiling",)
"""What is known of the whole evaluation; of points there is no judge."""


@dataclass(frozen=True)
class WandbDashboard:
    """Draws ``guidance/*`` against ``guidance/scale``, also of a training."""

    logger: WandbLogger

    def picture(self, key: str, path: Path, step: int) -> None:
        self.logger.log_image(key, [str(path)])

    def curve(self, key: str, points: Mapping[float, float], step: int) -> None:
        for scale, value in points.items():
            self._point(scale, {key: value})

    def results(self, results: Results, folder: Path) -> None:
        from guided_diffusion.evaluation.publish import wandb_media as media  # imports wandb, which takes a second

        run, every, classes = self.logger.experiment, points(results), results.about["class_names"]
        for scale, of_scale in groupby(every, key=lambda point: point.row.scale):
            self._point(scale, {key: value for point in of_scale for key, value in media.drawn(point).items()})
        judged = media.judged(every, classes) if modality(results.kind).uses_judge else {}
        run.log(media.charts(every) | media.tables(results.rows) | judged)
        run.log_artifact(media.artifact(run.id, folder))
        run.summary.update({f"evaluation/{name}": results.about[name] for name in SUMMARY if name in results.about})
        run.tags = tuple(dict.fromkeys([*(run.tags or ()), *(row.method for row in results.rows)]))

    def finish(self, status: int) -> None:
        self.logger.experiment.finish(exit_code=status)

    def _point(self, scale: float, values: Mapping[str, Any]) -> None:
        # Every axis by name: W&B picks one of the patterns guidance/* and * (which Lightning defines) at random.
        self.logger.experiment.define_metric(SCALE)
        for key in values:
            self.logger.experiment.define_metric(key, step_metric=SCALE)
        self.logger.experiment.log({SCALE: scale, **values})
