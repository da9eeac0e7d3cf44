"""Train a diffusion model, sample from it and judge it: ``python -m guided_diffusion.train``."""

from __future__ import annotations

import logging
import shlex
import sys
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.loggers import WandbLogger
from pytorch_lightning.utilities import rank_zero_only

from guided_diffusion.checkpoints import build_network, make_record
from guided_diffusion.config import build
from guided_diffusion.modules import DiffusionModule
from guided_diffusion.programs import command, program

log = logging.getLogger(__name__)


def train(config: DictConfig) -> Path:
    """Train as ``config`` says and return the run's folder.

    Raises:
        ValueError, FileNotFoundError: for a wrong config or missing data, before anything is written.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    output_dir = Path(config.output_dir)
    seed_everything(config.seed, workers=True, verbose=False)
    data = build(config.data)
    data.prepare_data()
    data.setup("fit")
    network = build_network(config.network, data.shape, data.num_classes)
    module: DiffusionModule = build(config.module, network=network)
    module.record = make_record(plain, data)
    callbacks = [build(node) for node in config.callbacks.values()]
    trainer: Trainer = build(config.trainer, callbacks=callbacks, logger=False)
    trainer.loggers = [build(node) for node in config.logger.values()]

    if config.label_dropout == 0:
        log.warning("label_dropout is 0: the model learns nothing without a label, so scales other than 1 say nothing")

    output_dir.mkdir(parents=True, exist_ok=True)
    if trainer.is_global_zero:
        OmegaConf.save(OmegaConf.create(plain), output_dir / "config.yaml")
        (output_dir / "command.txt").write_text(command() + "\n")
    for logger in trainer.loggers:
        logger.log_hyperparams(plain)
    status = 1
    try:
        trainer.fit(module, datamodule=data)
        status = 0
    finally:
        _finish(trainer, status)
    return output_dir


def _finish(trainer: Trainer, status: int) -> None:
    """Close W&B runs, so that the jobs of a sweep don't merge into one."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.experiment.finish(exit_code=status)


def run(config: DictConfig) -> None:
    config.output_dir = HydraConfig.get().runtime.output_dir
    _announce(train(config))


@rank_zero_only
def _announce(output_dir: Path) -> None:
    print(f"\nEverything of this run is in {output_dir}")
    checkpoint = shlex.quote(f"checkpoint={output_dir / 'checkpoints' / 'last.ckpt'}")
    print(f"Next: python -m guided_diffusion.sample {checkpoint} guidance.scale=3")


main = program(run, "train")

if __name__ == "__main__":
    sys.exit(main())
