"""A table of how accurate a classifier of noisy images is at each noise level."""

import logging
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, Trainer

from guided_diffusion.evaluation.results import write_csv
from guided_diffusion.training.length import reached_end
from guided_diffusion.training.modules.base import band_name
from guided_diffusion.training.modules.classifier import NUM_BANDS, ClassifierModule

log = logging.getLogger(__name__)

NO_VALIDATION = "no validation fits into the training; lower trainer.val_check_interval, or raise data.validation_size"


class AccuracyByNoise(Callback):
    """A callback that writes ``accuracy_by_noise.csv``: accuracy and calibration error for each tenth of time."""

    def __init__(self, output_dir: str) -> None:
        self.path = Path(output_dir) / "accuracy_by_noise.csv"
        self._measured: dict[str, float] = {}  # from the last validation, which may precede an interruption

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if pl_module.kind != "classifier":
            raise ValueError("callbacks=classifier is for module=classifier: a diffusion model needs other callbacks")

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Warn at the start if no validation is due before the last step."""
        last_batch = trainer.max_steps * trainer.accumulate_grad_batches
        if not trainer.num_val_batches or 0 < last_batch < (trainer.val_check_batch or 0):
            log.warning("there will be no %s: %s", self.path.name, NO_VALIDATION)

    def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._measured = {key: value.item() for key, value in trainer.callback_metrics.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"measured": self._measured}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._measured = state_dict["measured"]

    def on_train_end(self, trainer: Trainer, pl_module: Any) -> None:
        if not reached_end(trainer):
            return
        if "val/accuracy" not in self._measured:
            log.warning("no %s: %s", self.path.name, NO_VALIDATION)
        elif trainer.is_global_zero:
            self._write(pl_module)

    def _write(self, pl_module: ClassifierModule) -> None:
        rows = [self._row(pl_module, band) for band in range(NUM_BANDS)]
        write_csv(self.path, rows)
        print("\nvalidation accuracy (and calibration error) of the classifier by noise level")
        for row in rows:
            print("  t {t_from:.1f} to {t_to:.1f} {accuracy:7.1%} ({calibration_error:.3f})".format(**row))

    def _row(self, module: ClassifierModule, band: int) -> dict[str, float]:
        times = torch.tensor([band, band + 1], dtype=torch.float64) / NUM_BANDS
        row = dict(zip(("t_from", "t_to"), times.tolist(), strict=True))
        row |= zip(("log_snr_from", "log_snr_to"), module.schedule.log_snr(times).tolist(), strict=True)
        name = band_name(band, NUM_BANDS)
        return row | {key: self._measured[f"val/{key}_{name}"] for key in ("accuracy", "calibration_error")}
