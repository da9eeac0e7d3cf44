"""Train a diffusion model or a classifier to guide one: what ``python -m guided_diffusion.train`` does."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.utilities import rank_zero_only

from guided_diffusion.checkpoints import Trait, build_network, check_guidance, check_match, make_record, read_trait
from guided_diffusion.checks import (
    check_label_dropout,
    check_optimization,
    check_recipe,
    check_scales,
    check_seed,
    check_trainer,
)
from guided_diffusion.config import TrainConfig, build
from guided_diffusion.dashboards import finishing
from guided_diffusion.memory import naming_memory
from guided_diffusion.modules import NoisyTraining
from guided_diffusion.programs import command
from guided_diffusion.record import write_record
from guided_diffusion.sampling import Recipe
from guided_diffusion.signatures import check_config


def train(config: DictConfig) -> Path:
    """Train as ``config`` says and return the run's folder.

    Raises:
        ValueError, FileNotFoundError: for a wrong config or missing data, before anything is written.
    """
    plain = cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
    output_dir = Path(config.output_dir)
    check_config(plain, TrainConfig)
    check_seed(plain["seed"])
    check_scales(plain["scales"])
    check_trainer(plain["trainer"])
    seed_everything(config.seed, workers=True, verbose=False)
    data = build(config.data)
    data.prepare_data()
    data.setup("fit")
    network = build_network(config.network, data.shape, data.num_classes)
    module: NoisyTraining = build(config.module, network=network)
    module.record = make_record(module.kind, plain, data)
    _check_partners(config, module, Trait("this training", module.schedule, data.shape, data.class_names))
    check_optimization(module)
    _check_samples(plain, build(config.recipe), module)
    callbacks = [build(node) for node in config.callbacks.values() if isinstance(node, DictConfig)]
    trainer: Trainer = build(config.trainer, callbacks=callbacks, logger=False)
    trainer.loggers = [build(node) for node in config.logger.values()]

    output_dir.mkdir(parents=True, exist_ok=True)
    if trainer.is_global_zero:
        OmegaConf.save(OmegaConf.create(plain), output_dir / "config.yaml")
        (output_dir / "command.txt").write_text(command() + "\n")
        write_record(output_dir, plain["seed"], trainer.strategy.root_device.type)
    with finishing(trainer.loggers):
        for logger in trainer.loggers:
            logger.log_hyperparams(plain)
        with naming_memory("data.batch_size"):
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


def _check_samples(plain: dict[str, Any], recipe: Recipe, module: NoisyTraining) -> None:
    """Refuse, also where nothing is sampled in training, what samples of this training can't be made with."""
    check_recipe(recipe, module.schedule)
    if module.kind == "diffusion" and not plain["untaught_scales"]:
        check_label_dropout(plain["label_dropout"], recipe, plain["scales"], module.schedule, "scales")


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
