"""How the other processes of a job are started, and how they end with it."""

from __future__ import annotations

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
from pytorch_lightning.strategies.launchers import _MultiProcessingLauncher, _SubprocessScriptLauncher
from pytorch_lightning.strategies.launchers.launcher import _Launcher
from torch import distributed

PROGRAMS = ("train", "evaluate")
"""Those that may have several processes, as Hydra calls their jobs."""


ENVIRONMENT = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE")
"""What Lightning sets for a job: the next one would take it for the work of a cluster."""


NOT_FOR_CHILDREN = ("hydra.mode", "hydra.sweep", "hydra.launcher", "hydra/launcher", "hydra.run", "hydra.job.name")
"""Beginnings of Hydra's own overrides that are for the sweep, or that a job is given anew. ``hydra.sweeper`` is one."""


SECONDS_TO_END = 60
"""For a process whose work is done."""


class JobLauncher(_SubprocessScriptLauncher):
    """Starts the other processes of this job, of a sweep as of a single run, and ends them with it."""

    def launch(self, function: Callable, *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        with _environment_of_a_job(), self._children():
            result = super().launch(function, *args, trainer=trainer, **kwargs)
            if distributed.is_initialized():
                distributed.barrier()
            return result

    @contextmanager
    def _children(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                self.kill(signal.SIGTERM)
            self._end(SECONDS_TO_END / 4)  # what made this process fail may be an error that a child is about to tell
            raise
        self._end(SECONDS_TO_END)

    def _end(self, seconds: float) -> None:
        """What doesn't end in time is killed; Lightning's observer, which would kill this process too, sees none."""
        children = self.procs[:]
        self.procs.clear()
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
        os.environ |= {
            "MASTER_ADDR": self.cluster_environment.main_address,
            "MASTER_PORT": str(self.cluster_environment.main_port),
            "NODE_RANK": str(self.cluster_environment.node_rank()),
            "LOCAL_RANK": str(self.cluster_environment.local_rank()),
            "WORLD_SIZE": str(self.num_processes * self.num_nodes),
        }
        for local_rank in range(1, self.num_processes):
            environment = os.environ | {"LOCAL_RANK": str(local_rank)}
            folder = HydraConfig.get().runtime.cwd
            self.procs.append(subprocess.Popen(command_of_job(), env=environment, cwd=folder))


class SpawnLauncher(_MultiProcessingLauncher):
    """Lightning's, which leaves the port of the job to the next one."""

    def launch(self, function: Callable, *args: Any, trainer: Trainer | None = None, **kwargs: Any) -> Any:
        with _environment_of_a_job():
            try:
                return super().launch(function, *args, trainer=trainer, **kwargs)
            except KeyboardInterrupt:
                self._end()
                raise

    def _end(self) -> None:
        """The other processes save, if they train; what doesn't end in time is killed."""
        self.kill(signal.SIGTERM)
        for child in self.procs:
            child.join(SECONDS_TO_END / 4)
            child.kill()


def _job_launcher(trainer: Trainer, launcher: _SubprocessScriptLauncher) -> JobLauncher:
    return JobLauncher(launcher.cluster_environment, launcher.num_processes, launcher.num_nodes)


def _spawn_launcher(trainer: Trainer, launcher: _MultiProcessingLauncher) -> SpawnLauncher:
    if HydraConfig.initialized() and HydraConfig.get().runtime.choices.get("hydra/launcher") == "joblib":
        raise ValueError("a process of joblib can't spawn others: add strategy=ddp")
    return SpawnLauncher(trainer.strategy, start_method=launcher._start_method)  # type: ignore[arg-type]


LAUNCHERS: dict[type, Callable[[Trainer, Any], _Launcher]] = {
    _SubprocessScriptLauncher: _job_launcher,
    _MultiProcessingLauncher: _spawn_launcher,
}
"""Ours for each of Lightning's."""


def command_of_job() -> list[str]:
    """What starts this job alone, in its own folder: the module, Hydra's sources and the overrides of the job."""
    hydra = HydraConfig.get()
    sources = {source.provider: source.path for source in hydra.runtime.config_sources}
    extra = ["--config-dir", sources["command-line"]] if "command-line" in sources else []
    own = [text for text in hydra.overrides.hydra if not _key(text).startswith(NOT_FOR_CHILDREN)]
    return [
        *(sys.executable, "-m", f"guided_diffusion.{hydra.job.name}"),
        *("--config-path", sources["main"], "--config-name", str(hydra.job.config_name), *extra),
        *hydra.overrides.task,
        *own,
        f"hydra.run.dir={_quoted(hydra.runtime.output_dir)}",
    ]


def _key(override: str) -> str:
    return OverridesParser.create().parse_override(override).key_or_group


def _quoted(value: str) -> str:
    """As Hydra's grammar has it."""
    escaped = value.replace("'", "\\'")
    return f"'{escaped}'"


@contextmanager
def _environment_of_a_job() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in ENVIRONMENT}
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
