"""The W&B logger of a run, with group, job type and tags; an interrupted training continues in the same W&B run."""

import json
import os
import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from guided_diffusion.training.lightning_internals import lightning_internals
from guided_diffusion.utils.files import atomic_write

STATE = "wandb_run.json"
"""The file, in the folder of a training, with the id of its W&B run and what has been logged there."""
RUN_ID = "WANDB_RUN_ID"
"""W&B's own environment variable for the id of a run; the agents of its sweeps set it."""


class Logged(NamedTuple):
    """The extent of what a W&B run has logged: the number of rows, the last step, and the keys logged at that step."""

    rows: int = 0
    step: int = -1
    keys: frozenset[str] = frozenset()

    def includes(self, step: int, keys: Iterable[str]) -> bool:
        """Return whether these keys were logged at this step; at an earlier step than the last one, all were."""
        return step < self.step or (step == self.step and self.keys.issuperset(keys))

    def adding(self, step: int, keys: Iterable[str]) -> "Logged":
        earlier = self.keys if step == self.step else frozenset()
        return Logged(self.rows + 1, step, earlier.union(keys))


class OneRunLogger(WandbLogger):
    """A W&B logger that continues the run of an interrupted training, online or offline, after ``begin``.

    A resumed training repeats the steps after its checkpoint, with the same values. W&B can't remove what it has of
    them, so what was logged before the interruption is not logged again.
    """

    _before = Logged()  # at the start of this process
    _logged = Logged()
    _run_id: str | None = None

    @rank_zero_only
    def begin(self, is_new: bool) -> None:
        """Start the W&B run of a new training, or continue that of an earlier one in this folder, if it has one."""
        path = self._state_file
        state = json.loads(path.read_text()) if path.is_file() and not is_new else {}
        self._run_id = os.environ.get(RUN_ID) or state.get("id") or secrets.token_hex(4)
        if state.get("id") == self._run_id:
            self._before = Logged(state["rows"], state["step"], frozenset(state["keys"]))
        self._logged = self._before
        with lightning_internals("leave out logger=wandb"):
            self._wandb_init["id"] = self._run_id
        run = self.experiment
        if run.step < self._logged.rows:  # offline, W&B does not know where the run was, and drops lower steps
            run.log({"trainer/global_step": self._logged.step}, step=self._logged.rows, commit=True)
            self._logged = self._logged._replace(rows=self._logged.rows + 1)
        self._save()

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        if step is None or self.is_first(step, metrics):
            super().log_metrics(metrics, step)

    def is_first(self, step: int, keys: Iterable[str]) -> bool:
        """Return whether these keys were not logged at this step before an interruption, and note that they are now."""
        keys = list(keys)
        if self._before.includes(step, keys):
            return False
        self._logged = self._logged.adding(step, keys)
        self._save()
        return True

    @property
    def _state_file(self) -> Path:
        return Path(self.save_dir or ".") / STATE

    def _save(self) -> None:
        if self._run_id:
            state = self._logged._asdict() | {"keys": sorted(self._logged.keys), "id": self._run_id}
            with atomic_write(self._state_file) as path:
                path.write_text(json.dumps(state) + "\n")


class Job(NamedTuple):
    """The labels by which W&B groups and filters a run."""

    group: str | None = None
    job_type: str | None = None
    tags: tuple[str, ...] = ()


def current_job() -> Job:
    """Return the default labels of ``wandb_logger`` for the running Hydra program; no labels outside of one."""
    if not HydraConfig.initialized():
        return Job()
    hydra = HydraConfig.get()
    group = Path(hydra.sweep.dir).name if hydra.mode == RunMode.MULTIRUN else None
    tags = (hydra.runtime.choices.get(name) for name in ("guidance", "data"))
    return Job(group, hydra.job.config_name, tuple(filter(None, tags)))


def wandb_logger(
    save_dir: str,
    name: str,
    project: str,
    mode: Literal["online", "offline", "disabled"] | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: list[str] | None = None,
) -> OneRunLogger:
    """Return a ``OneRunLogger`` that works without an account: its run is then offline, to be sent by ``wandb sync``.

    Args:
        save_dir, name, project: The folder and the name of the run, and the W&B project.
        mode: ``online``, ``offline`` or ``disabled``; by default ``WANDB_MODE``, else online if there is an account.
        group: The group of the runs of a sweep, by default the name of the sweep's folder.
        job_type: The kind of run, by default the program, ``train`` or ``evaluate``.
        tags: The tags, by default the name and the options of guidance and data.
    """
    import wandb

    wandb.Settings(project=project)  # refuses a wrong name now, and not only when the run starts
    job = current_job()
    return OneRunLogger(
        save_dir=save_dir,
        name=name,
        project=project,
        mode=mode or os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline"),
        group=group or job.group,
        job_type=job_type or job.job_type,
        tags=[name, *job.tags] if tags is None else tags,
    )
