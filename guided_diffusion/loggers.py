"""The W&B logger, set up so that a curve over guidance scales plots itself."""

from __future__ import annotations

import os

from pytorch_lightning.loggers import WandbLogger


def wandb_logger(save_dir: str, name: str, project: str, mode: str | None = None) -> WandbLogger:
    """A ``WandbLogger`` that needs no account: offline if there is none, to be sent later by ``wandb sync``.

    Metrics below ``guidance/`` are drawn against ``guidance/scale``.

    Args:
        save_dir: folder of the run.
        name: of the run.
        project: of W&B.
        mode: ``online``, ``offline`` or ``disabled``; by default ``WANDB_MODE``, else online with an account.
    """
    import wandb

    mode = mode or os.environ.get("WANDB_MODE") or ("online" if wandb.api.api_key else "offline")
    logger = WandbLogger(save_dir=save_dir, name=name, project=project, mode=mode)
    logger.experiment.define_metric("guidance/scale")
    logger.experiment.define_metric("guidance/*", step_metric="guidance/scale")
    return logger
