"""TensorBoard, whose axis is a whole number: of an evaluation it is the scale in hundredths."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from pytorch_lightning.loggers import TensorBoardLogger

from guided_diffusion.evaluation.publish.base import by_scale, points
from guided_diffusion.evaluation.results import Results


@dataclass(frozen=True)
class TensorBoardDashboard:
    """Scalars and images: of a training against its steps, of an evaluation against 100 times the scale."""

    logger: TensorBoardLogger

    def picture(self, key: str, path: Path, step: int) -> None:
        self._image(key, np.asarray(Image.open(path).convert("RGB")), step)

    def curve(self, key: str, points: Mapping[float, float], step: int) -> None:
        self.logger.log_metrics(by_scale(key, points), step)

    def results(self, results: Results, folder: Path) -> None:
        for point in points(results):
            step = round(100 * point.row.scale)
            for name, value in point.figures.items():
                self.logger.experiment.add_scalar(point.key(name), value, step)
            for name, pixels in point.pictures.items():
                self._image(point.key(name), pixels, step)

    def finish(self, status: int) -> None:
        self.logger.finalize("failed" if status else "success")

    def _image(self, key: str, pixels: np.ndarray, step: int) -> None:
        self.logger.experiment.add_image(key, pixels, step, dataformats="HWC")
