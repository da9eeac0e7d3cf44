"""A table of how accurate a classifier of noisy images is at each noise level."""

from __future__ import annotations

import csv
import logging
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer

from guided_diffusion.training.modules.base import band_name
from guided_diffusion.training.modules.classifier import NUM_BANDS, ClassifierModule
from guided_diffusion.utils.files import atomic_write

log = logging.getLogger(__name__)

COLUMNS = ("t_from", "t_to", "log_snr_from", "log_snr_to", "accuracy", "calibration_error")


class AccuracyByNoise(Callback):
    """A callback that writes ``accuracy_by_noise.csv``: accuracy and calibration error for each tenth of time.

    Args:
        output_dir: The folder of the run.
    """

    def __init__(self, output_dir: str) -> None:
        self.path = Path(output_dir) / "accuracy_by_noise.csv"
        self._measured: dict[str, float] = {}
        """The metrics of the last validation, which may have been before an interruption."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if pl_module.kind != "classifier":
            raise ValueError("callbacks=classifier is for module=classifier: a diffusion model needs other callbacks")

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._measured = {key: value.item() for key, value in trainer.callback_metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self._measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._measured = state_dict["measured"]

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if "val/accuracy" not in self._measured:
            log.warning("no %s: there was no validation; lower trainer.val_check_interval", self.path.name)
        elif trainer.is_global_zero:
            self._write(pl_module)

    def _write(self, pl_module: ClassifierModule) -> None:
        rows = [self._row(pl_module, band) for band in range(NUM_BANDS)]
        with atomic_write(self.path) as path, path.open("w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(COLUMNS)
            table.writerows([f"{value:.6g}" for value in row] for row in rows)
        print("\nvalidation accuracy (and calibration error) of the classifier by noise level")
        for start, end, _, _, accuracy, calibration_error in rows:
            print(f"  t {start:.1f} to {end:.1f} {accuracy:7.1%} ({calibration_error:.3f})")

    def _row(self, module: ClassifierModule, band: int) -> list[float]:
        times = torch.tensor([band, band + 1], dtype=torch.float64) / NUM_BANDS
        name = band_name(band, NUM_BANDS)
        logged = self._measured[f"val/accuracy_{name}"], self._measured[f"val/calibration_error_{name}"]
        return [*times.tolist(), *module.schedule.log_snr(times).tolist(), *logged]
