"""Trains a diffusion model, or a classifier to guide one: what ``python -m guided_diffusion.train`` does."""

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.utilities.exceptions import SIGTERMException

from guided_diffusion.checkpoints.compatibility import check_guidance, check_match, read_spec
from guided_diffusion.checkpoints.guidance_config import expand_paths, guidance_needs_classifier
from guided_diffusion.checkpoints.record import ModelSpec, build_network, make_record
from guided_diffusion.cli.checks import (
    check_guide_is_used,
    check_keys_of_module,
    check_label_dropout,
    check_no_key_replaces_another,
    check_other_models_guide,
    check_output_folders,
    check_recipe,
    check_scales,
    check_seed,
)
from guided_diffusion.cli.config import TrainConfig, in_sweep, is_overridden, plain, trust_packages
from guided_diffusion.cli.experiments import drop_unused_settings
from guided_diffusion.cli.guide import Guide, guide_of_training
from guided_diffusion.cli.next_command import command_to_resume, print_next_command
from guided_diffusion.cli.own_folder import check_own_folder
from guided_diffusion.cli.run_folder import prepare_folder
from guided_diffusion.cli.validation import check_config
from guided_diffusion.data import LabelledDataModule
from guided_diffusion.recipe import Recipe
from guided_diffusion.training.callbacks import Resumable
from guided_diffusion.training.callbacks.base import SamplingCallback
from guided_diffusion.training.checks import check_optimization, check_time_sampling, check_trainer
from guided_diffusion.training.initialisation import initialise, resolve_init_from
from guided_diffusion.training.length import (
    count_steps,
    has_epochs,
    limited_batches,
    prefer_epochs,
    set_number_of_steps,
)
from guided_diffusion.training.loggers.continuation import Continuation, begin_logging
from guided_diffusion.training.loggers.log import closing_loggers
from guided_diffusion.training.modules import NoisyTraining
from guided_diffusion.training.resume import find_run
from guided_diffusion.training.resume.checkpoint_io import AtomicCheckpointIO
from guided_diffusion.training.resume.early_end import STOPPED, EarlyEnd
from guided_diffusion.training.resume.find_run import Start, folder_lock
from guided_diffusion.training.resume.loop_state import ResumableFitLoop, check_steps_per_epoch
from guided_diffusion.training.resume.preemption import preemptible
from guided_diffusion.training.resume.run_files import mark_finished
from guided_diffusion.training.resume.sweep_reuse import reuse_training
from guided_diffusion.training.resume.train_longer import NewSettings
from guided_diffusion.training.trainer import build_trainer, check_optimizer
from guided_diffusion.utils.distributed import rank_zero_print
from guided_diffusion.utils.instantiate import build
from guided_diffusion.utils.memory import explain_out_of_memory
from guided_diffusion.utils.precision import check_precision
from guided_diffusion.utils.signals import TERMINATED


def run(config: DictConfig) -> Path:
    """Train in the folder that Hydra has chosen, as a job of a sweep if it is one; return the run's folder."""
    hydra = HydraConfig.get()
    config.output_dir = hydra.runtime.output_dir
    overrides = hydra.overrides.task
    if unused := drop_unused_settings(config, overrides):
        rank_zero_print(f"not used, as the command line chooses other options: {', '.join(unused)} of the experiment")
    check_no_key_replaces_another(overrides)
    check_keys_of_module(overrides, config.module)
    check_other_models_guide(overrides, config.guidance)
    expand_paths(config.guidance)
    check_guide_is_used(overrides, config.guidance)
    scale = config.guidance.get("scale")
    if is_overridden(overrides, "guidance.scale") and isinstance(scale, int | float):
        config.scales = [scale]
    _check_one_length(overrides, config)
    sweep = Path(hydra.sweep.dir).absolute() if in_sweep() else None
    return train(config, _earlier_runs(Path(config.output_dir)), sweep)


def _earlier_runs(output_dir: Path) -> list[Path]:
    """Return the other runs of this name, also in sweeps; none if the command line chooses the folder."""
    overrides = HydraConfig.get().overrides
    if is_overridden(overrides.task, "output_dir") or is_overridden(overrides.hydra, "hydra.run.dir"):
        return []
    parent = output_dir.parent.parent if in_sweep() else output_dir.parent
    found = [*parent.glob("*/config.yaml"), *parent.glob("sweep_*/*/config.yaml")]
    return [path.parent for path in found if path.parent != output_dir]


def _check_one_length(overrides: Sequence[str], config: DictConfig) -> None:
    """Raise ``ValueError`` if the command line gives both a number of steps and a number of epochs."""
    lengths = {f"trainer.{name}": config.trainer.get(name) for name in ("max_steps", "max_epochs")}
    if all(is_overridden(overrides, key) and length not in (None, -1) for key, length in lengths.items()):
        raise ValueError("trainer.max_steps and trainer.max_epochs both give the length of the training: leave one out")


def train(config: DictConfig, search: Sequence[Path] = (), sweep: Path | None = None) -> Path:
    """Train as the config says and return the run's folder, which with ``resume`` may differ from ``output_dir``.

    ``resume=auto`` may also go on with runs in ``search``. Jobs of a ``sweep`` whose weights would be equal train once.

    Raises:
        ValueError, FileNotFoundError: For a wrong config or missing data, before anything is written.
        SystemExit: With status 143 after Ctrl-C, SIGTERM, SIGUSR1 or SIGHUP; a checkpoint is saved.
    """
    expand_paths(config.guidance)
    prefer_epochs(config)
    _check_values(plain(config))
    initial_weights = resolve_init_from(config, [Path(config.output_dir), *search])
    with _starting_point(config, search, sweep) as start:
        if start.finished:
            return start.folder
        config.output_dir, config.resume = str(start.folder), None
        settings = plain(config)
        seed_everything(config.seed, workers=True, verbose=False)
        trust_packages(config)
        data = _load_data(config)
        network = build_network(config.network, data.shape, data.num_classes)
        module: NoisyTraining = build(config.module, network=network)
        module.record = make_record(module.kind, settings, data)
        initialise(network, module.record, initial_weights, start.checkpoint)
        guide = _check_partners(config, settings, module, data)
        trainer = _build_trainer(config, start)
        _make_resumable(trainer, data)
        _set_length(config, trainer, module, data, start)
        trainer.precision_plugin.convert_module(module)  # before the average copies it, and a checkpoint is loaded
        check_optimizer(trainer.strategy, check_optimization(module, trainer.max_steps))
        _check_times_and_samples(settings, build(config.recipe), module)
        _check_last_stage(start.folder, trainer, data)

        with folder_lock(start.folder):
            start = prepare_folder(trainer, settings, start)
            module.record |= start.note
            if _fit(trainer, module, data, start, guide):
                print_next_command(start.folder, module.kind, settings)
        return start.folder


def _load_data(config: DictConfig) -> LabelledDataModule:
    data: LabelledDataModule = build(config.data)
    data.prepare_data()
    data.setup("fit")
    return data


def _build_trainer(config: DictConfig, start: Start) -> Trainer:
    """Build the trainer with its callbacks and loggers."""
    resumable = [Resumable(), EarlyEnd(start.folder, config.trainer.get("max_time"))]
    callbacks = [build(node) for node in config.callbacks.values() if isinstance(node, DictConfig)]
    if config.trainer.get("max_time"):
        config.trainer.max_time = None  # EarlyEnd stops the training instead
    trainer = build_trainer(config.trainer, [*resumable, *([NewSettings()] if start.longer else []), *callbacks])
    trainer.loggers = [build(node) for node in config.logger.values()]
    return trainer


def _set_length(
    config: DictConfig, trainer: Trainer, module: NoisyTraining, data: LabelledDataModule, start: Start
) -> None:
    """Give the number of steps to the trainer and the learning-rate schedule if the length is given in epochs."""
    if has_epochs(trainer.max_epochs):
        origin = start.origin or {"step": 0, "epoch": 0}
        set_number_of_steps(trainer, config, count_steps(trainer, data, origin["step"], origin["epoch"]))
        module.lr_scheduler = build(config.module.lr_scheduler)


@contextmanager
def _starting_point(config: DictConfig, search: Sequence[Path], sweep: Path | None) -> Iterator[Start]:
    """Yield where the training starts: anew, from a checkpoint, or with the weights of another job of the sweep."""
    wanted, output_dir = plain(config), Path(config.output_dir)
    runs = [run for run in (output_dir, *search) if (run / "config.yaml").is_file()]
    start = find_run.find_start(wanted, output_dir, runs)
    if start.folder != output_dir:
        with suppress(OSError):
            output_dir.rmdir()  # Hydra has made it, and it is empty
    if not start.in_place and not start.finished:
        check_own_folder(start.folder, "training")
    try:
        if start.finished:
            yield start
        else:
            with reuse_training(wanted, start, sweep, runs) as reused:
                yield reused
    finally:
        find_run.clear_inherited_start()


def _check_values(settings: dict[str, Any]) -> None:
    check_precision(settings["trainer"].get("precision"))
    check_config(settings, TrainConfig)
    check_seed(settings["seed"])
    check_scales(settings["scales"])
    check_trainer(settings["trainer"])


def _check_times_and_samples(settings: dict[str, Any], recipe: Recipe, module: NoisyTraining) -> None:
    """Raise ``ValueError`` if this training can't draw its times or be sampled, even if no callback samples."""
    check_time_sampling(module)
    check_recipe(recipe, module.schedule)
    if module.kind == "diffusion" and not settings["untaught_scales"]:
        check_label_dropout(settings["module"]["label_dropout"], recipe, settings["scales"], module.schedule, "scales")


def _check_last_stage(folder: Path, trainer: Trainer, data: LabelledDataModule) -> None:
    """Raise an error if a folder can't be written, or if a callback will lack what it needs after the training."""
    check_output_folders(folder, ("checkpoints", "samples"))
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, SamplingCallback):
            callback.check(data)


def _make_resumable(trainer: Trainer, data: LabelledDataModule) -> None:
    """Give the trainer the parts that exact resume needs; raise ``ValueError`` if an epoch is too short for them."""
    check_steps_per_epoch(trainer, limited_batches(trainer, len(data.train_dataloader()) // trainer.world_size))
    trainer.strategy.checkpoint_io = AtomicCheckpointIO()
    ResumableFitLoop.replace(trainer)


def _fit(trainer: Trainer, module: NoisyTraining, data: LabelledDataModule, start: Start, guide: Guide | None) -> bool:
    """Train, and return whether the end was reached; if not, print the command that resumes the training.

    The classifier that guides the samples of the training, if there is one, is trained first.
    """
    if guide:
        guide.find_or_train(lambda: data, [start.checkpoint.parents[1]] if start.checkpoint else [])
    with closing_loggers(trainer.loggers):
        is_new = not start.in_place or start.restarted
        begin_logging(trainer, module.record["config"], Continuation(is_new, start.step, start.metrics_rows))
        try:
            with preemptible(), explain_out_of_memory("data.batch_size"):
                trainer.fit(module, datamodule=data, ckpt_path=start.checkpoint, weights_only=True)
        except SIGTERMException:
            if trainer.is_global_zero:
                go_on = "to go on" if not in_sweep() else "repeat the sweep with resume=auto, or go on with this job"
                again = command_to_resume(start.folder)
                print(f"\nstopped by a signal after step {trainer.global_step}; {go_on}: {again}", file=sys.stderr)
            sys.exit(TERMINATED)
    note = start.folder / STOPPED
    if trainer.is_global_zero and note.is_file():
        print(f"\n{note.read_text().strip()}; to go on: {command_to_resume(start.folder)}", file=sys.stderr)
        return False
    if trainer.is_global_zero:
        mark_finished(start.folder)
    return True


def _check_partners(
    config: DictConfig, settings: dict[str, Any], module: NoisyTraining, data: LabelledDataModule
) -> Guide | None:
    """Raise an error if a model that this one samples with is missing, or has other noise, images or classes.

    Return the classifier that is yet to be trained for its samples, if there is one.
    """
    spec = ModelSpec("this training", module.schedule, data.shape, data.class_names)
    if module.kind == "diffusion":
        check_guidance(config.guidance, spec, config.trusted)
    elif config.callbacks.get("guide"):
        if not guidance_needs_classifier(config.guidance):
            raise ValueError("callbacks.guide is guided by the classifier in training: add guidance=classifier")
        check_match(spec, read_spec(config.callbacks.guide, "diffusion", config.trusted))
    return guide_of_training(config, settings, module.kind, spec)
