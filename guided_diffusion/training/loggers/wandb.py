"""The W&B logger."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from pytorch_lightning.loggers import WandbLogger


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
