"""Train a diffusion model or a classifier to guide one: what ``python -m guided_diffusion.train`` does."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only
from pytorch_lightning.utilities.exceptions import SIGTERMException

from guided_diffusion.checkpoints.compatibility import ModelSpec, check_guidance, check_match, read_spec
from guided_diffusion.checkpoints.files import LAST
from guided_diffusion.checkpoints.guidance_config import expand_classifier, guidance_needs_classifier
from guided_diffusion.checkpoints.record import build_network, make_record
from guided_diffusion.cli.checks import check_label_dropout, check_recipe, check_scales, check_seed
from guided_diffusion.cli.config import TrainConfig, is_overridden
from guided_diffusion.cli.program import command
from guided_diffusion.cli.provenance import write_record
from guided_diffusion.cli.validation import check_config
from guided_diffusion.data import LabelledDataModule
from guided_diffusion.recipe import Recipe
from guided_diffusion.training.callbacks import Resumable
from guided_diffusion.training.checks import check_optimization, check_trainer
from guided_diffusion.training.loggers.csv import CSVLogger
from guided_diffusion.training.loggers.finish import closing_loggers
from guided_diffusion.training.modules import NoisyTraining
from guided_diffusion.training.resume.checkpoint_io import AtomicCheckpointIO
from guided_diffusion.training.resume.find_run import (
    FINISHED,
    Start,
    clear_inherited_start,
    find_start,
    folder_lock,
    mark_finished,
)
from guided_diffusion.training.resume.loop_state import ResumableFitLoop
from guided_diffusion.training.resume.preemption import preemptible
from guided_diffusion.training.resume.sweep_reuse import WEIGHTS_FROM, reuse_training
from guided_diffusion.training.trainer import build_trainer
from guided_diffusion.utils.instantiate import build
from guided_diffusion.utils.memory import explain_out_of_memory
from guided_diffusion.utils.signals import TERMINATED


def run(config: DictConfig) -> None:
    hydra = HydraConfig.get()
    config.output_dir = hydra.runtime.output_dir
    said = hydra.overrides.task
    scale = config.guidance.get("scale")
    if is_overridden(said, "guidance.scale") and not is_overridden(said, "scales") and isinstance(scale, int | float):
        config.scales = [scale]
    sweep = Path(hydra.sweep.dir).absolute() if hydra.mode == RunMode.MULTIRUN else None
    train(config, _earlier_runs(Path(config.output_dir)), sweep)


def _earlier_runs(output_dir: Path) -> list[Path]:
    """Beside a time-stamped folder, and in the sweeps there; none where the command line names the folder."""
    overrides = HydraConfig.get().overrides
    if is_overridden(overrides.task, "output_dir") or is_overridden(overrides.hydra, "hydra.run.dir"):
        return []
    name = output_dir.parent.parent if HydraConfig.get().mode == RunMode.MULTIRUN else output_dir.parent
    found = [*name.glob("*/config.yaml"), *name.glob("sweep_*/*/config.yaml")]
    return [path.parent for path in found if path.parent != output_dir]


def train(config: DictConfig, search: Sequence[Path] = (), sweep: Path | None = None) -> Path:
    """Train as ``config`` says and return the run's folder: another than ``output_dir`` where ``resume`` finds one.

    Args:
        config: of the training.
        search: folders of runs that ``resume=auto`` may go on with, beside ``output_dir``.
        sweep: the folder of the sweep that this is a job of. Its jobs share a training where they can.

    Raises:
        ValueError, FileNotFoundError: for a wrong config or missing data, before anything is written.
        SystemExit: with status 143 when told to stop by Ctrl-C, SIGTERM or SIGUSR1; a checkpoint is saved.
    """
    output_dir = Path(config.output_dir)
    expand_classifier(config.guidance)
    wanted = _plain(config)
    _check_values(wanted)
    runs = [run for run in (output_dir, *search) if (run / "config.yaml").is_file()]
    start = find_start(wanted, output_dir, runs)
    if start.folder != output_dir:
        with suppress(OSError):
            output_dir.rmdir()  # empty: Hydra has made it
    try:
        if not start.finished:
            with reuse_training(wanted, start, sweep, runs) as start:
                _run(config, start)
    finally:
        clear_inherited_start()
    return start.folder


def _run(config: DictConfig, start: Start) -> None:
    """Train from there, and sample."""
    config.output_dir, config.resume = str(start.folder), None
    plain = _plain(config)
    module, data, trainer = assemble(config, plain)
    with folder_lock(start.folder):
        if trainer.is_global_zero:
            _describe(start, plain, trainer.strategy.root_device.type)
        _prepare(trainer.loggers, start)
        with closing_loggers(trainer.loggers):
            for logger in trainer.loggers:
                logger.log_hyperparams(plain)
            _fit(trainer, module, data, start)
        if trainer.is_global_zero:
            mark_finished(start.folder)
    _announce(start.folder, module.kind)


def assemble(config: DictConfig, plain: dict[str, Any]) -> tuple[NoisyTraining, LabelledDataModule, Trainer]:
    """What trains, on what, and how; nothing is written yet."""
    seed_everything(config.seed, workers=True, verbose=False)
    data: LabelledDataModule = build(config.data)
    data.prepare_data()
    data.setup("fit")
    network = build_network(config.network, data.shape, data.num_classes)
    module: NoisyTraining = build(config.module, network=network)
    module.record = make_record(module.kind, plain, data)
    _check_partners(config, module, ModelSpec("this training", module.schedule, data.shape, data.class_names))
    callbacks = [build(node) for node in config.callbacks.values() if isinstance(node, DictConfig)]
    check_optimization(module)
    _check_samples(plain, build(config.recipe), module)
    trainer = build_trainer(config.trainer, [Resumable(), *callbacks])
    trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    ResumableFitLoop.replace(trainer)
    trainer.loggers = [build(node) for node in config.logger.values()]
    return module, data, trainer


def _plain(config: DictConfig) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(config, resolve=True, throw_on_missing=True))


def _check_values(plain: dict[str, Any]) -> None:
    check_config(plain, TrainConfig)
    check_seed(plain["seed"])
    check_scales(plain["scales"])
    check_trainer(plain["trainer"])


def _check_samples(plain: dict[str, Any], recipe: Recipe, module: NoisyTraining) -> None:
    """Refuse, also where nothing is sampled in training, what samples of this training can't be made with."""
    check_recipe(recipe, module.schedule)
    if module.kind == "diffusion" and not plain["untaught_scales"]:
        check_label_dropout(plain["label_dropout"], recipe, plain["scales"], module.schedule, "scales")


def _describe(start: Start, plain: dict[str, Any], device: str) -> None:
    if start.reused or not start.checkpoint:
        for of_an_earlier_run in (FINISHED, WEIGHTS_FROM):
            (start.folder / of_an_earlier_run).unlink(missing_ok=True)
        OmegaConf.save(OmegaConf.create(plain), start.folder / "config.yaml")
        (start.folder / "command.txt").write_text(command() + "\n")
        write_record(start.folder, plain["seed"], device)
    if start.reused:
        (start.folder / WEIGHTS_FROM).write_text(f"{start.checkpoint}\n")


def _prepare(loggers: Sequence[Logger], start: Start) -> None:
    """Of an earlier run in this folder, what was logged up to the checkpoint stays."""
    for logger in loggers:
        if isinstance(logger, CSVLogger):
            logger.keep(start.metrics_rows)


def _fit(trainer: Trainer, module: NoisyTraining, data: LabelledDataModule, start: Start) -> None:
    try:
        with preemptible(), explain_out_of_memory("data.batch_size"):
            trainer.fit(module, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
    except SIGTERMException:
        if trainer.is_global_zero:
            again = _again(start.folder)
            print(f"\nstopped by a signal after step {trainer.global_step}; to go on: {again}", file=sys.stderr)
        sys.exit(TERMINATED)


def _again(folder: Path) -> str:
    """The command that goes on from here: ``auto`` would not look in the folder of a run that was named."""
    parts = shlex.split(command())
    resumes = [part for part in parts if part.lstrip("+").startswith("resume=")]
    named = bool(resumes) and resumes[-1].partition("=")[2] not in ("auto", "null")
    return shlex.join([*(part for part in parts if part not in resumes), f"resume={folder if named else 'auto'}"])


def _check_partners(config: DictConfig, module: NoisyTraining, spec: ModelSpec) -> None:
    """The models that this one will sample with must be there, and for the same noise, images and classes."""
    if module.kind == "diffusion":
        check_guidance(config.guidance, spec)
    elif config.callbacks.get("guide"):
        if not guidance_needs_classifier(config.guidance):
            raise ValueError("callbacks.guide is guided by the classifier in training: add guidance=classifier")
        check_match(spec, read_spec(config.callbacks.guide, "diffusion"))


NEXT = {
    "diffusion": "checkpoint={path} guidance.scale=3",
    "classifier": "checkpoint=DIFFUSION guidance=classifier guidance.classifier={path} compare=true",
}
"""How to sample with what was trained, by its kind."""


@rank_zero_only
def _announce(output_dir: Path, kind: str) -> None:
    path = output_dir / LAST
    print(f"\nEverything of this run is in {output_dir}")
    print(f"Next: python -m guided_diffusion.sample {NEXT[kind].format(path=shlex.quote(str(path)))}")
