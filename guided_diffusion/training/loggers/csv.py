"""A CSV logger whose table survives interruptions and can be continued by a resumed run."""

from __future__ import annotations

import csv
from itertools import islice
from pathlib import Path

from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers.csv_logs import CSVLogger as LightningCSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from guided_diffusion.utils.files import atomic_write, flush_to_disk


class CSVLogger(LightningCSVLogger):
    """A logger that writes ``save_dir/metrics.csv``; unlike Lightning's, it keeps the rows of the run it continues."""

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
        """The number of rows logged so far."""
        return self.experiment.rows

    @rank_zero_only
    def keep(self, rows: int) -> None:
        """Keep the first rows that an earlier run left in this folder, and remove the others."""
        self.experiment.keep(rows)

    @rank_zero_only
    def finalize(self, status: str) -> None:
        try:
            super().finalize(status)
        except OSError:  # such as a full disk, which a failed run has already reported
            if status != "failed":
                raise


class MetricsTable(ExperimentWriter):
    """The table ``metrics.csv``; an interruption never loses rows already written."""

    def __init__(self, log_dir: str) -> None:
        super().__init__(log_dir)
        self.written = 0

    @property
    def rows(self) -> int:
        """The number of rows, written or waiting."""
        return self.written + len(self.metrics)

    def keep(self, rows: int) -> None:
        """Keep the first rows of the file, and remove the others."""
        path = Path(self.metrics_file_path)
        if rows == 0:
            path.unlink(missing_ok=True)
        if path.is_file():
            with path.open(newline="") as file:
                table = csv.DictReader(file)
                kept, self.metrics_keys = list(islice(table, rows)), list(table.fieldnames or ())
            self._replace(kept)
            self.written = len(kept)

    def save(self) -> None:
        """Write the waiting rows, and flush them to the disk; ``OSError`` if that fails."""
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
        """Do nothing, where Lightning's table would delete an existing file."""
