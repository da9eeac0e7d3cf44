"""The W&B logger of a run, with the run's place in the project: its group, job type and tags."""

import os
from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning.loggers import WandbLogger

MODES = ("online", "offline", "disabled", "shared", "run", "dryrun")
"""The modes of W&B; the last two are old names of the first two."""


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
    mode: str | None = None,
    group: str | None = None,
    job_type: str | None = None,
    tags: list[str] | None = None,
) -> WandbLogger:
    """Return a ``WandbLogger`` that works without an account: its run is then offline, to be sent by ``wandb sync``.

    Args:
        save_dir, name, project: The folder and the name of the run, and the W&B project.
        mode: ``online``, ``offline`` or ``disabled``; by default ``WANDB_MODE``, else online if there is an account.
        group: The group of the runs of a sweep, by default the name of the sweep's folder.
        job_type: The kind of run, by default the program, ``train`` or ``evaluate``.
        tags: The tags, by default the name and the options of guidance and data.

    Raises:
        ValueError: If the mode is unknown.
    """
    import wandb

    mode = mode or os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
    if mode not in MODES:
        raise ValueError(f"mode (or WANDB_MODE) must be one of {', '.join(MODES)}, got {mode}")
    job = current_job()
    return WandbLogger(
        save_dir=save_dir,
        name=name,
        project=project,
        mode=mode,
        group=group or job.group,
        job_type=job_type or job.job_type,
        tags=[name, *job.tags] if tags is None else tags,
    )
