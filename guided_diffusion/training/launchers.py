"""Starting and ending the other processes of a job, with launchers derived from Lightning's private ones.

Lightning starts the other processes with the command that started the first one. In a sweep that command is the whole
sweep, and in a worker of joblib or submitit it is the worker. The launchers here use the command of the one job, made
from Hydra's record of it, and clear away what a job leaves behind (port, process group) before the next one.

Lightning has no public way to choose that command, so this file, and no other, derives from its private launchers. It
is imported only where a job has several processes.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from pytorch_lightning import Trainer
from torch import distributed

from guided_diffusion.training.lightning_internals import lightning_internals
from guided_diffusion.utils.overrides import hydra_override

ONE_PROCESS = "use one process: trainer.devices=1 strategy=auto"

with lightning_internals(ONE_PROCESS):
    from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher

PROGRAMS = ("train", "evaluate")
"""The Hydra job names of the programs that may have several processes."""

JOB_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""The variables that Lightning sets for a job. Left behind, they make the next job believe that it is in a cluster."""

SWEEP_OVERRIDES = ("hydra.mode", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra.run", "hydra.job.name")
"""The beginnings of Hydra's overrides that do not belong in a child's command; ``hydra.sweeper`` begins with one."""

SECONDS_TO_END = 60
"""The time that a child has to end once its work is done."""


class JobLauncher(_SubprocessScriptLauncher):
    """A launcher that starts the other processes with the command of this job, and ends them with it."""

    def launch(self, function: Callable, *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        with job_environment(), self._children():
            result = super().launch(function, *args, trainer=trainer, **kwargs)
            if distributed.is_initialized():
                distributed.barrier()
            return result

    @contextmanager
    def _children(self) -> Iterator[None]:
        """End the child processes when the block ends, also by an error."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                self.kill(signal.SIGTERM)
            self._end(SECONDS_TO_END / 4)  # a child may be about to print the error that made this process fail
            raise
        self._end(SECONDS_TO_END)

    def _end(self, seconds: float) -> None:
        """Wait for the children, and kill those that take longer."""
        children = self.procs[:]
        self.procs.clear()  # otherwise Lightning's observer of this list would kill this process too
        if distributed.is_initialized():
            distributed.destroy_process_group()
        for child in children:
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def _call_children_scripts(self) -> None:
        if not HydraConfig.initialized() or HydraConfig.get().job.name not in PROGRAMS:
            return super()._call_children_scripts()
        self._check_can_spawn_children()
        job, processes = self.cluster_environment, self.num_processes * self.num_nodes
        values = (job.main_address, job.main_port, job.node_rank(), job.local_rank(), processes)
        os.environ |= dict(zip(JOB_VARIABLES, map(str, values), strict=True))
        for local_rank in range(1, self.num_processes):
            environment, folder = os.environ | {"LOCAL_RANK": str(local_rank)}, HydraConfig.get().runtime.cwd
            self.procs.append(subprocess.Popen(command_of_job(), env=environment, cwd=folder))


class SpawnLauncher(_MultiProcessingLauncher):
    """A launcher that spawns the other processes, ends them on Ctrl-C, and frees the port of the job at its end."""

    def launch(self, function: Callable, *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        with job_environment():
            try:
                return super().launch(function, *args, trainer=trainer, **kwargs)
            except KeyboardInterrupt:
                self.kill(signal.SIGTERM)
                for child in self.procs:
                    child.join(SECONDS_TO_END / 4)  # time for the child to save its checkpoint
                    child.kill()
                raise


def replace_launcher(trainer: Trainer) -> None:
    """Give the trainer the launcher of this file that corresponds to Lightning's own, if there is one.

    Raises:
        ValueError: If the strategy spawns processes inside a worker of joblib, which can't spawn any.
        RuntimeError: If this version of Lightning has other launchers.
    """
    strategy: Any = trainer.strategy
    launcher = strategy.launcher
    with lightning_internals(ONE_PROCESS):
        for method in ("_call_children_scripts", "_check_can_spawn_children", "kill"):
            getattr(_SubprocessScriptLauncher, method)  # a method that is overridden must exist
        if type(launcher) is _SubprocessScriptLauncher:
            strategy._launcher = JobLauncher(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)
        elif type(launcher) is _MultiProcessingLauncher:
            if HydraConfig.initialized() and HydraConfig.get().runtime.choices.get("hydra/launcher") == "joblib":
                raise ValueError("a process of joblib can't spawn others: add strategy=ddp")
            strategy._launcher = SpawnLauncher(strategy, start_method=launcher._start_method)


def command_of_job() -> list[str]:
    """Return the command that starts this job alone in its own folder: module, config and overrides."""
    hydra = HydraConfig.get()
    sources = {source.provider: source.path for source in hydra.runtime.config_sources}
    config_dir = ["--config-dir", sources["command-line"]] if "command-line" in sources else []
    parser = OverridesParser.create()
    keys = {text: parser.parse_override(text).key_or_group for text in hydra.overrides.hydra}
    return [
        *(sys.executable, "-m", f"guided_diffusion.{hydra.job.name}"),
        *("--config-path", sources["main"], "--config-name", str(hydra.job.config_name), *config_dir),
        *hydra.overrides.task,
        *(text for text, key in keys.items() if not key.startswith(SWEEP_OVERRIDES)),
        hydra_override("hydra.run.dir", hydra.runtime.output_dir),
    ]


@contextmanager
def job_environment() -> Iterator[None]:
    """Restore, after the block, the variables that Lightning sets for a job."""
    before = {name: os.environ[name] for name in JOB_VARIABLES if name in os.environ}
    try:
        yield
    finally:
        for name in JOB_VARIABLES:
            os.environ.pop(name, None)
        os.environ |= before
