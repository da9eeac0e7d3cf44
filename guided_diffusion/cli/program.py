"""What the command-line programs have in common. Nothing here, or that it imports, takes long to import."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any
from unittest import mock

import hydra
from hydra._internal import utils as hydra_utils
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import HydraException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from guided_diffusion.cli.config import CONFIG_PATH, register
from guided_diffusion.cli.errors import check_flags, explain
from guided_diffusion.utils.memory import keep_freed_memory
from guided_diffusion.utils.signals import INTERRUPTED, TERMINATED, Terminated, signal_handlers

log = logging.getLogger(__name__)


USER_ERRORS = (ValueError, OSError, OmegaConfBaseException, HydraException)


GO_ON = {
    "train": "; resume=auto goes on from the last checkpoint, if there is one",
    "evaluate": "; what has been sampled is kept: the same command goes on from there",
}
"""After Ctrl-C or SIGTERM."""


FAILED = "failed.txt"
"""Of a sweep: a line for each job that failed."""


_failed_sweeps: list[Path] = []


_folders: list[Path] = []
"""Of the run and those it is in, the innermost first; and which of them are new."""


_new_folders: list[Path] = []


def program(config_name: str, run: Callable[[DictConfig], object] | None = None) -> Callable[[], None]:
    """A Hydra program that says on one line what is wrong with its input, and exits with status 1.

    ``HYDRA_FULL_ERROR=1`` gives the traceback. In a sweep the other jobs go on. Folders that were made for a run
    that came to nothing are removed. ``-m`` may stand anywhere among the overrides, which Hydra itself doesn't
    understand.

    Args:
        config_name: name of the program, of its config and of its module in ``guided_diffusion.cli``.
        run: what a job does with its config, by default ``run`` of that module.
    """

    def job(config: DictConfig) -> None:
        import pytorch_lightning  # noqa: F401  (sets the level of its log when it is imported)

        quiet()
        keep_freed_memory()
        register()  # in a process of joblib or submitit nothing else does
        folder = Path(HydraConfig.get().runtime.output_dir)
        try:
            _check_folder(folder)
            (run or importlib.import_module(f"guided_diffusion.cli.{config_name}").run)(config)
        except Exception as error:
            if HydraConfig.get().mode != RunMode.MULTIRUN:
                raise
            _note_failure(explain(error, config_name) if _is_users(error) else str(error))
            if not _is_users(error):
                log.exception("job %s failed", HydraConfig.get().job.num)
        finally:
            _remove_if_empty(folder)

    def main() -> None:
        # Threads that wait for each other by spinning stall small operations wherever cores are shared: two trainings
        # of the digits side by side on two cores took 800 ms a step, and take 207 ms so; one alone takes 118 ms for
        # 96 ms. It works where torch is not imported yet; your own setting wins.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        quiet()
        register()
        _failed_sweeps.clear()
        _folders.clear()
        _new_folders.clear()
        try:
            sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
            check_flags(sys.argv[1:])
            with _errors_as_they_are(), signal_handlers({signal.SIGTERM: _end, signal.SIGUSR1: _end}):
                hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name=config_name)(job)()
        except Exception as error:
            if os.environ.get("HYDRA_FULL_ERROR") or not _is_users(error):
                raise
            key = "output_dir: " if _is_of_the_folder(error) else ""
            print(f"error: {key}{explain(error, config_name)}", file=sys.stderr)
            sys.exit(1)
        except (KeyboardInterrupt, SystemExit) as stop:
            cause = stop if isinstance(stop, KeyboardInterrupt) else stop.__context__
            if not isinstance(cause, KeyboardInterrupt):
                raise
            by_signal = isinstance(cause, Terminated)
            what = "stopped by a signal" if by_signal else "interrupted"
            print(f"\n{what}{GO_ON.get(config_name, '')}", file=sys.stderr)
            sys.exit(TERMINATED if by_signal else INTERRUPTED)
        finally:
            _remove_new_folders()
        if _failed_sweeps:
            sys.exit(1)

    return main


def _end(number: int, frame: FrameType | None) -> None:
    raise Terminated


def _note_failure(message: str) -> None:
    """In a file of the sweep, whichever process the job is in: it does not raise, so that the sweep ends in order."""
    hydra_config = HydraConfig.get()
    log.error("job %s: error: %s", hydra_config.job.num, message)
    with (Path(hydra_config.sweep.dir) / FAILED).open("a") as file:
        file.write(f"{hydra_config.job.num}: {' '.join(hydra_config.overrides.task)}: {message}\n")


def command() -> str:
    """The command that started this program, of a sweep this job alone, to be pasted into a shell."""
    module = Path(sys.argv[0]).stem
    start = ["python", "-m", f"guided_diffusion.{module}"] if sys.argv[0].endswith(".py") else [module]
    in_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    return shlex.join([*start, *(HydraConfig.get().overrides.task if in_sweep else sys.argv[1:])])


def _is_users(error: BaseException) -> bool:
    """Whether the user can mend it. Lightning's own error is known where Lightning was imported, which is slow."""
    lightning = sys.modules.get("lightning_fabric.utilities.exceptions")
    return isinstance(error, (*USER_ERRORS, *([lightning.MisconfigurationException] if lightning else [])))


@contextmanager
def _errors_as_they_are() -> Iterator[None]:
    """Hydra prints several lines and exits where its ``run_and_report`` sees an error: let those of users through."""
    report = hydra_utils.run_and_report

    def run(function: Callable[[], Any]) -> Any:
        try:
            return function()
        except Exception as error:
            if _is_users(error):
                raise
            return report(functools.partial(_raise, error))

    quiet = JobReturn.return_value.getter(_result)  # type: ignore[attr-defined]
    with mock.patch.object(hydra_utils, "run_and_report", run), mock.patch.object(JobReturn, "return_value", quiet):
        yield


def _result(job: JobReturn) -> Any:
    """Of a job, or its error; Hydra's own prints the overrides before it raises."""
    if job.status is JobStatus.FAILED:
        raise job._return_value
    return job._return_value


def _raise(error: Exception) -> None:
    raise error


class NoteNewFolders(Callback):
    """A callback of Hydra's: which folders a run is about to make, so that none is left empty; if jobs failed."""

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        _note_folders(config.hydra.run)

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:
        _note_folders(config.hydra.sweep)

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        if (Path(config.hydra.sweep.dir) / FAILED).is_file():
            _failed_sweeps.append(Path(config.hydra.sweep.dir))


def _note_folders(node: DictConfig) -> None:
    folder = OmegaConf.select(node, "dir", throw_on_resolution_failure=False)
    if folder:
        path = Path(folder).absolute()
        _folders.extend([path, *path.parents])
        _new_folders.extend(one for one in _folders if not one.exists())


def _is_of_the_folder(error: BaseException) -> bool:
    return isinstance(error, OSError) and bool(error.filename) and Path(error.filename).absolute() in _folders


def _remove_new_folders() -> None:
    """Those with nothing in them; of a sweep nothing is there where all there is is what Hydra wrote before it."""
    for folder in _new_folders:
        if folder.is_dir() and {path.name for path in folder.iterdir()} <= {"multirun.yaml", FAILED}:
            for path in folder.iterdir():
                path.unlink()
        _remove_if_empty(folder)


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and folder.absolute() != Path.cwd() and not any(folder.iterdir()):
        folder.rmdir()


def _check_folder(folder: Path) -> None:
    hydra_config = HydraConfig.get()
    if not (hydra_config.run if hydra_config.mode == RunMode.RUN else hydra_config.sweep).dir:
        raise ValueError("output_dir is empty: name a folder, or . for this one")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"output_dir {folder} can't be written")


def quiet() -> None:
    """Leave out what Lightning and torch say of things that are as they should be."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for about in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists.*",
        ".*Experiment logs directory .* exists.*",
        ".*smaller than the logging interval.*",
        ".*LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", about)
