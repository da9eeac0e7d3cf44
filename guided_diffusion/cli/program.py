"""What the command-line programs share: one-line errors, exit statuses, signals, sweeps. It imports no torch."""

import importlib
import logging
import os
import select
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import env_override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from guided_diffusion.cli.config import CONFIG_PATH, register
from guided_diffusion.cli.errors import check_flags, explain
from guided_diffusion.cli.output_folders import (
    FAILED,
    OutputFolders,
    check_output_dir,
    output_folders,
    remove_if_empty,
    write_job_record,
)
from guided_diffusion.cli.sweep_folder import JobError
from guided_diffusion.utils.memory import keep_freed_memory
from guided_diffusion.utils.overrides import names_run, shell_override
from guided_diffusion.utils.signals import (
    INTERRUPTED,
    TERMINATED,
    Terminated,
    leave_closed_terminal,
    signal_handlers,
    stop_signals,
)
from guided_diffusion.utils.validation import DoesNotSuit

log = logging.getLogger(__name__)

Run = Callable[[DictConfig], Path | None]
"""The function that runs a job; it may return the folder of the results if that is another than the job's own."""
USER_ERRORS = (ValueError, OSError, OmegaConfBaseException, HydraException)
ERRORS_OF_LIBRARIES = (
    ("lightning_fabric.utilities.exceptions", "MisconfigurationException"),
    ("wandb.errors", "Error"),
)
"""The errors by which libraries refuse the user's settings: module and name, as importing the modules takes long."""
FULL_ERROR = "HYDRA_FULL_ERROR"
"""The environment variable that asks for the traceback; with it Hydra lets errors through instead of printing them."""

BROKEN_PIPE = 128 + 13
"""The exit status of a program whose output nobody reads any more, as if the system's SIGPIPE had ended it."""

GO_ON = {
    "train": "; resume=auto goes on from the last checkpoint, if there is one",
    "evaluate": "; what has been sampled is kept: the same command goes on from there",
}
"""The hint on how to go on that a program prints after Ctrl-C or SIGTERM."""


def program(config_name: str, run: Run | None = None) -> Callable[[], None]:
    """Return the ``main`` of a Hydra program that reports wrong input on one line and exits with status 1.

    With ``HYDRA_FULL_ERROR=1`` the error is raised instead. In a sweep the other jobs go on. Folders that were made
    for a run are removed if they stay empty. ``-m`` may stand anywhere among the overrides.

    Args:
        config_name: The name of the program, of its config and of its module in ``guided_diffusion.cli``.
        run: The function that runs a job with its config; by default, ``run`` of that module.
    """

    def main() -> None:
        # By default waiting threads spin for long, which stalls two trainings side by side. Without any spinning one
        # alone is slow: a step of guided_mnist takes 217 ms on two cores, with this 112 ms and by default 109 ms.
        # It has an effect only before torch is imported. A setting of the user's wins.
        if "OMP_WAIT_POLICY" not in os.environ:
            os.environ.setdefault("GOMP_SPINCOUNT", "10000")
        quiet()
        register()
        full_error = os.environ.get(FULL_ERROR) == "1"

        def job(config: DictConfig) -> None:
            with env_override({FULL_ERROR: str(int(full_error))}):
                _run_job(config, config_name, run)

        with _exit_when_nobody_reads(), output_folders() as folders, _exit_when_stopped(config_name, folders):
            error = _launch(job, config_name)
            if error and (full_error or _nobody_reads(error)):
                raise error
            if error:
                _print(error, config_name, folders.folders)
            if error or folders.any_job_failed():
                sys.exit(1)

    return main


def _launch(job: Run, config_name: str) -> BaseException | None:
    """Let Hydra compose the config and run the job or the sweep; return the error that ended it."""
    try:
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
        check_flags(sys.argv[1:])
        handlers = signal_handlers(dict.fromkeys(stop_signals(), _terminate))
        with handlers, env_override({FULL_ERROR: "1"}):
            hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name=config_name)(job)()
    except JobError as failed:
        return failed.__cause__
    except Exception as error:
        return error
    return None


def _run_job(config: DictConfig, config_name: str, run: Run | None) -> None:
    """Run one job, which may be one of a sweep, in the process that the launcher has chosen."""
    run = run or importlib.import_module(f"guided_diffusion.cli.{config_name}").run
    quiet()  # again, because Lightning sets the level of its log when it is imported
    keep_freed_memory()
    register()  # for the processes of joblib and submitit
    hydra_config = HydraConfig.get()
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    folder = Path(hydra_config.runtime.output_dir)
    try:
        if "output_dir" in config:
            check_output_dir((hydra_config.sweep if in_sweep else hydra_config.run).dir, folder)
        results = run(config) or folder
        if in_sweep:
            write_job_record(hydra_config, results, finished=True)
    except Exception as error:
        if not in_sweep or _nobody_reads(error):
            raise JobError from error
        if isinstance(error, DoesNotSuit) and _takes_all_options(Path(hydra_config.sweep.dir)):
            skipped = f"guidance={hydra_config.runtime.choices['guidance']}: {error}"
            write_job_record(hydra_config, folder, finished=False, skipped=skipped)
            print(f"skipped {skipped}")
        else:
            _note_failure(error, config_name)
    finally:
        remove_if_empty(folder)


def _takes_all_options(sweep: Path) -> bool:
    """Return whether a sweep is over all guidances of some name, as in ``guidance=glob(*)``.

    Hydra's file in its folder says so, which the processes of every launcher can read.
    """
    overrides = OmegaConf.select(OmegaConf.load(sweep / "multirun.yaml"), "hydra.overrides.task") or []
    return any(override.startswith("guidance=glob(") for override in overrides)


def _note_failure(error: Exception, config_name: str) -> None:
    """Write why a job failed to the log and to a file of the sweep, which goes on."""
    hydra_config, is_bug = HydraConfig.get(), not _is_users(error)
    message = str(error) if is_bug else explain(error, config_name)
    log.error("job %s: error: %s", hydra_config.job.num, message, exc_info=error if is_bug else None)
    with (Path(hydra_config.sweep.dir) / FAILED).open("a", encoding="utf-8") as file:
        file.write(f"{hydra_config.job.num}: {' '.join(hydra_config.overrides.task)}: {message}\n")


def _print(error: BaseException, config_name: str, folders: Sequence[Path]) -> None:
    """Print one line for an error that the user can fix, and the traceback of any other."""
    if not _is_users(error):
        return traceback.print_exception(error)
    message = explain(error, config_name)
    if isinstance(error, OSError) and isinstance(error.filename, str) and Path(error.filename).absolute() in folders:
        message = f"output_dir: no folder can be made at {message}; choose another place"
    print(f"error: {message}", file=sys.stderr)


def _is_users(error: BaseException) -> bool:
    """Return whether the user can fix the error: wrong input, a refusal by a library, or a missing package."""
    if isinstance(error, ModuleNotFoundError):
        return bool(error.name) and not f"{error.name}.".startswith("guided_diffusion.")
    of_libraries = (vars(sys.modules[module])[name] for module, name in ERRORS_OF_LIBRARIES if module in sys.modules)
    return isinstance(error, (*USER_ERRORS, *of_libraries))


@contextmanager
def _exit_when_stopped(config_name: str, folders: OutputFolders) -> Iterator[None]:
    """Answer Ctrl-C and the signals that end a program with one line and the exit status that shells expect."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit) as stop:
        cause = stop if isinstance(stop, KeyboardInterrupt) else stop.__context__  # Lightning exits after Ctrl-C
        if not isinstance(cause, KeyboardInterrupt):
            raise
        by_signal = isinstance(cause, Terminated)
        what = "stopped by a signal" if by_signal else "interrupted"
        print(f"\n{what}{_how_to_go_on(config_name, folders.folders)}", file=sys.stderr)
        sys.exit(TERMINATED if by_signal else INTERRUPTED)


def _how_to_go_on(config_name: str, folders: Sequence[Path]) -> str:
    """Return the hint of ``GO_ON``; a training that was begun from a named run is named by its own folder."""
    hint = GO_ON.get(config_name, "")
    is_named = config_name == "train" and names_run(sys.argv[1:])
    return hint.replace("resume=auto", shell_override("resume", folders[0])) if is_named and folders else hint


@contextmanager
def _exit_when_nobody_reads() -> Iterator[None]:
    """Exit without a word if the program that reads the output has ended, as in ``--help | head -1``."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError as error:
        if not _nobody_reads(error):
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())  # what is left in the buffers can't be written either
        sys.exit(BROKEN_PIPE)


def _nobody_reads(error: BaseException) -> bool:
    """Return whether an error says that the output is a pipe without a reader, and not that a connection is lost."""
    if not isinstance(error, BrokenPipeError) or os.name == "nt":  # Windows can't tell
        return False
    outputs = select.poll()
    for stream in (sys.stdout, sys.stderr):
        outputs.register(stream, 0)  # errors are always reported
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in outputs.poll(0))


def _terminate(number: int, frame: FrameType | None) -> None:
    leave_closed_terminal()
    raise Terminated


def quiet() -> None:
    """Silence messages of Lightning and torch about things that are as intended."""
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    about = "not have many workers|(Checkpoint|Experiment logs) directory .* exists|smaller than the logging interval"
    warnings.filterwarnings("ignore", f".*({about}|LeafSpec)")
