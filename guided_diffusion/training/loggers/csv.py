"""The CSV logger."""

from __future__ import annotations

import csv
from contextlib import suppress
from itertools import islice
from pathlib import Path

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers.csv_logs import CSVLogger as LightningCSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from guided_diffusion.utils.files import atomic_write, flush_to_disk


class CSVLogger(LightningCSVLogger):
    """Lightning's, which would delete the table of the run that it goes on with.

    Args:
        save_dir: folder of ``metrics.csv``.
    """

    def __init__(self, save_dir: str) -> None:
        super().__init__(save_dir, name="", version="")

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsTable:
        if self._experiment is None:
            self._experiment = MetricsTable(self.log_dir)
        return self._experiment  # type: ignore[return-value]

    @property
    def rows(self) -> int:
        """Logged up to now."""
        return self.experiment.rows

    @rank_zero_only
    def keep(self, rows: int) -> None:
        """Keep the first rows of an earlier run in this folder, and remove the others."""
        self.experiment.keep(rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        with suppress(*([OSError] if status == "failed" else [])):  # a full disk has been told of
            super().finalize(status)


class MetricsTable(ExperimentWriter):
    """``metrics.csv``, of which no interruption takes what has been written."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.written = 0

    @property
    def rows(self) -> int:
        return self.written + len(self.metrics)

    def keep(self, rows: int) -> None:
        path = Path(self.metrics_file_path)
        path.unlink(missing_ok=True) if rows == 0 else None
        if path.is_file():
            with path.open(newline="") as file:
                table = csv.DictReader(file)
                kept, self.metrics_keys = list(islice(table, rows)), list(table.fieldnames or ())
            self._replace(kept)
            self.written = len(kept)

    def save(self) -> None:
        pending = len(self.metrics)
        try:
            super().save()
            if pending:
                flush_to_disk(Path(self.metrics_file_path))
        except OSError as error:
            raise OSError(f"the metrics could not be written in {self.log_dir}: {error.strerror or error}") from error
        self.written += pending

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline="") as file:
            rows = list(csv.DictReader(file))
        self._replace(rows)

    def _replace(self, rows: list[dict[str, str]]) -> None:
        with atomic_write(self.metrics_file_path) as path, path.open("w", newline="") as file:
            table = csv.DictWriter(file, self.metrics_keys)
            table.writeheader()
            table.writerows(rows)

    def _check_log_dir_exists(self) -> None:
        """Lightning deletes the table here."""
