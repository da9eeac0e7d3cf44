"""What the command-line programs have in common."""

from __future__ import annotations

import functools
import logging
import os
import shlex
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities.exceptions import MisconfigurationException

from guided_diffusion.config import CONFIG_PATH, register

log = logging.getLogger(__name__)

USER_ERRORS = (ValueError, OSError, OmegaConfBaseException, MisconfigurationException)


def program(task: Callable[[DictConfig], object], config_name: str) -> Callable[[], None]:
    """A Hydra program that says on one line what is wrong with its input, and exits with status 1.

    ``HYDRA_FULL_ERROR=1`` gives the traceback. In a sweep the other jobs go on. ``-m`` may stand anywhere among the
    overrides, which Hydra itself doesn't understand.
    """

    @functools.wraps(task)
    def with_one_line_errors(config: DictConfig) -> None:
        _quiet()
        register()  # in a process of joblib or submitit nothing else does
        try:
            task(config)
        except USER_ERRORS as error:
            message = f"error: {' '.join(str(error).split())}"
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                log.error("job %s: %s", HydraConfig.get().job.num, message)
                raise
            if os.environ.get("HYDRA_FULL_ERROR"):
                raise
            print(message, file=sys.stderr)
            sys.exit(1)
        finally:
            _remove_if_empty(Path(HydraConfig.get().runtime.output_dir))

    def main() -> None:
        _quiet()
        register()
        sys.argv[1:] = sorted(sys.argv[1:], key=lambda argument: argument not in ("-m", "--multirun"))
        hydra.main(version_base="1.3", config_path=CONFIG_PATH, config_name=config_name)(with_one_line_errors)()

    return main


def command() -> str:
    """The command that started this program, of a sweep this job alone, to be pasted into a shell."""
    module = Path(sys.argv[0]).stem
    start = ["python", "-m", f"guided_diffusion.{module}"] if sys.argv[0].endswith(".py") else [module]
    in_sweep = HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN
    return shlex.join([*start, *(HydraConfig.get().overrides.task if in_sweep else sys.argv[1:])])


def _remove_if_empty(folder: Path) -> None:
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()


def _quiet() -> None:
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
