"""The loggers that Lightning's own constructors don't set up as is needed here."""

from __future__ import annotations

import csv
import os
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning_fabric.loggers.logger import rank_zero_experiment
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import CSVLogger as LightningCSVLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.utilities import rank_zero_only

from guided_diffusion.files import synchronise, whole_file


class Job(NamedTuple):
    """Where W&B files a run."""

    group: str | None = None
    """Of a sweep, the name of its folder."""
    job_type: str | None = None
    """The program: ``train`` or ``evaluate``."""
    tags: tuple[str, ...] = ()
    """The options of guidance and data."""


def current_job() -> Job:
    """The job of the Hydra program that runs; outside one nothing is known of it."""
    if not HydraConfig.initialized():
        return Job()
    hydra = HydraConfig.get()
    group = Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None
    tags = (hydra.runtime.choices.get(name) for name in ("guidance", "data"))
    return Job(group, hydra.job.config_name, tuple(filter(None, tags)))


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
                synchronise(Path(self.metrics_file_path))
        except OSError as error:
            raise OSError(f"the metrics could not be written in {self.log_dir}: {error.strerror or error}") from error
        self.written += pending

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        with Path(self.metrics_file_path).open(newline="") as file:
            rows = list(csv.DictReader(file))
        self._replace(rows)

    def _replace(self, rows: list[dict[str, str]]) -> None:
        with whole_file(self.metrics_file_path) as path, path.open("w", newline="") as file:
            table = csv.DictWriter(file, self.metrics_keys)
            table.writeheader()
            table.writerows(rows)

    def _check_log_dir_exists(self) -> None:
        """Lightning deletes the table here."""


def wandb_logger(
    save_dir: str,
    name: str,
    project: str,
    mode: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: list[str] | None = None,
) -> WandbLogger:
    """A ``WandbLogger`` that needs no account: offline if there is none, to be sent later by ``wandb sync``.

    Args:
        save_dir: folder of the run.
        name: of the run.
        project: of W&B.
        mode: ``online``, ``offline`` or ``disabled``; by default ``WANDB_MODE``, else online with an account.
        group: what the runs of a sweep share, by default the name of the sweep's folder.
        job_type: by default the program, ``train`` or ``evaluate``.
        tags: by default the name, and the options of guidance and data.
    """
    import wandb

    job = current_job()
    return WandbLogger(
        save_dir=save_dir,
        name=name,
        project=project,
        mode=mode or os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline"),
        group=group or job.group,
        job_type=job_type or job.job_type,
        tags=[name, *job.tags] if tags is None else tags,
    )


def tensorboard_logger(save_dir: str) -> TensorBoardLogger:
    """A ``TensorBoardLogger`` that writes into the folder ``tensorboard`` of a run.

    Raises:
        ValueError: if TensorBoard is not installed.
    """
    try:
        return TensorBoardLogger(save_dir, name="tensorboard", version="", default_hp_metric=False)
    except ModuleNotFoundError as error:
        raise ValueError(
            'TensorBoard is not installed: pip install "guided-diffusion-lightning[tensorboard]"'
        ) from error
