"""Train a diffusion model or a classifier to guide one: what ``python -m guided_diffusion.train`` does."""

from __future__ import annotations

import logging
import shlex
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.utilities import rank_zero_only

from guided_diffusion.checkpoints import Trait, build_network, check_guidance, check_match, make_record, read_trait
from guided_diffusion.config import build
from guided_diffusion.dashboards import finishing
from guided_diffusion.modules import NoisyTraining
from guided_diffusion.programs import command

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
    module: NoisyTraining = build(config.module, network=network)
    module.record = make_record(module.kind, plain, data)
    _check_partners(config, module, Trait("this training", module.schedule, data.shape, data.class_names))
    callbacks = [build(node) for node in config.callbacks.values() if isinstance(node, DictConfig)]
    trainer: Trainer = build(config.trainer, callbacks=callbacks, logger=False)
    trainer.loggers = [build(node) for node in config.logger.values()]

    if config.label_dropout == 0 and module.kind == "diffusion":
        log.warning("label_dropout is 0: the model learns nothing without a label, so scales other than 1 say nothing")

    output_dir.mkdir(parents=True, exist_ok=True)
    if trainer.is_global_zero:
        OmegaConf.save(OmegaConf.create(plain), output_dir / "config.yaml")
        (output_dir / "command.txt").write_text(command() + "\n")
    with finishing(trainer.loggers):
        for logger in trainer.loggers:
            logger.log_hyperparams(plain)
        trainer.fit(module, datamodule=data)
    _announce(output_dir, module.kind)
    return output_dir


def _check_partners(config: DictConfig, module: NoisyTraining, trait: Trait) -> None:
    """The models that this one will sample with must be there, and for the same noise, images and classes."""
    if module.kind == "diffusion":
        check_guidance(config.guidance, trait)
    elif config.callbacks.get("guide"):
        if "classifier" not in config.guidance:
            raise ValueError("callbacks.guide is guided by the classifier in training: add guidance=classifier")
        check_match(trait, read_trait(config.callbacks.guide, "diffusion"))


NEXT = {
    "diffusion": "checkpoint={path} guidance.scale=3",
    "classifier": "checkpoint=DIFFUSION guidance=classifier guidance.classifier={path} compare=true",
}
"""How to sample with what was trained, by its kind."""


@rank_zero_only
def _announce(output_dir: Path, kind: str) -> None:
    path = output_dir / "checkpoints" / "last.ckpt"
    print(f"\nEverything of this run is in {output_dir}")
    print(f"Next: python -m guided_diffusion.sample {NEXT[kind].format(path=shlex.quote(str(path)))}")
