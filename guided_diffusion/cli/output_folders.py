"""Notes the output folders of a program before Hydra makes them, and removes them at its end if they are empty."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.conf import HydraConf
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from guided_diffusion.cli.sweep_folder import (
    carried_past_hydra,
    check_folder_name,
    check_one_folder,
    fix_sweep_folder,
)
from guided_diffusion.utils.files import atomic_write

FAILED = "failed.txt"
"""The file of a sweep with one line for each job that failed."""
JOBS = ".jobs"
"""The folder in which each job of a sweep notes its overrides and its end, for as long as the sweep runs."""


@dataclass
class OutputFolders:
    """The folders that one call of a program makes for its results."""

    folders: list[Path] = field(default_factory=list)
    """The folder of the run or sweep, and then its parents; empty until Hydra has composed the config."""
    new: list[Path] = field(default_factory=list)
    """The folders among them that did not exist before."""
    failures_before: int = 0
    """The size of ``failed.txt`` before the call, in bytes."""

    def note(self, node: DictConfig) -> None:
        """Note the folder in ``hydra.run`` or ``hydra.sweep``, and remove the records of an earlier sweep's jobs."""
        folder = OmegaConf.select(node, "dir", throw_on_resolution_failure=False)
        if folder:
            path = Path(folder).absolute()
            self.folders = [path, *path.parents]
            self.new = [one for one in self.folders if not one.exists()]
            self.failures_before = self._failures()
            self._remove_job_records()

    def any_job_failed(self) -> bool:
        """Return whether ``failed.txt`` has grown."""
        return self._failures() > self.failures_before

    def _failures(self) -> int:
        """Return the size of ``failed.txt`` in bytes, 0 if there is none."""
        return sum((folder / FAILED).stat().st_size for folder in self.folders[:1] if (folder / FAILED).is_file())

    def _remove_job_records(self) -> None:
        for folder in self.folders[:1]:
            shutil.rmtree(folder / JOBS, ignore_errors=True)

    def remove_if_unused(self) -> None:
        """Remove new folders that are empty, or hold only what Hydra and failed jobs write into a sweep's folder."""
        self._remove_job_records()
        for folder in self.new:
            if folder.is_dir() and {path.name for path in folder.iterdir()} <= {"multirun.yaml", FAILED}:
                for path in folder.iterdir():
                    path.unlink()
            remove_if_empty(folder)


_current: ContextVar[OutputFolders] = ContextVar("output_folders")


@contextmanager
def output_folders() -> Iterator[OutputFolders]:
    """Yield the folders of one call of a program, which ``NoteOutputFolders`` notes; then remove unused ones."""
    folders = OutputFolders()
    _current.set(folders)
    try:
        yield folders
    finally:
        folders.remove_if_unused()


class NoteOutputFolders(Callback):
    """A Hydra callback that notes the folder of a run or sweep before it is made, and the jobs of a sweep."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Note the folder of a run."""
        with carried_past_hydra():
            check_one_folder(config)
            check_folder_name(OmegaConf.select(config.hydra.run, "dir", throw_on_resolution_failure=False))
            _current.get().note(config.hydra.run)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Choose the folder of the sweep, and note it."""
        with carried_past_hydra():
            fix_sweep_folder(config)
            _current.get().note(config.hydra.sweep)

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Write the record of a job; this may be in a process of the launcher."""
        if config.hydra.mode == RunMode.MULTIRUN:
            with carried_past_hydra():
                write_job_record(config.hydra, Path(config.hydra.runtime.output_dir), finished=False)


def write_job_record(hydra: DictConfig | HydraConf, folder: Path, finished: bool, skipped: str = "") -> None:
    """Write the overrides of a job of a sweep, the folder of its results, and whether it has finished.

    ``hydra`` is the job's ``HydraConfig``, and ``skipped`` says why the job was left out, if it was.
    """
    overrides = list(hydra.overrides.task)
    record = {"folder": str(folder), "overrides": overrides, "finished": finished, "skipped": skipped}
    records = Path(hydra.sweep.dir) / JOBS
    records.mkdir(exist_ok=True)
    with atomic_write(records / f"{hydra.job.num}.json") as path:
        path.write_text(json.dumps(record))


def job_records(sweep: Path) -> dict[int, dict[str, Any]]:
    """Return the record of each job that this sweep has started, by its number, as ``write_job_record`` notes it."""
    records = {int(path.stem): json.loads(path.read_text()) for path in (sweep / JOBS).glob("*.json")}
    return dict(sorted(records.items()))


def remove_if_empty(folder: Path) -> None:
    """Remove a folder if it is empty and not the working directory."""
    if folder.is_dir() and folder.absolute() != Path.cwd() and not any(folder.iterdir()):
        folder.rmdir()


def check_output_dir(chosen: str | None, folder: Path) -> None:
    """Raise ``ValueError`` if no folder is chosen, and ``PermissionError`` if nothing can be written there."""
    if not chosen:
        raise ValueError("output_dir is empty: name a folder, or . for this one")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"output_dir: {folder} can't be written: choose another place")
