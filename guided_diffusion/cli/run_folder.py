"""Prepares the folder of a training: keeps aside what an earlier run left there, and writes the records."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pytorch_lightning import Trainer

from guided_diffusion.cli.provenance import command, write_record
from guided_diffusion.training.resume.early_end import STOPPED
from guided_diffusion.training.resume.find_run import Start, set_inherited_start
from guided_diffusion.training.resume.fingerprint import same_training
from guided_diffusion.training.resume.keep_aside import keep_aside
from guided_diffusion.training.resume.run_files import FINISHED, config_of
from guided_diffusion.training.resume.sweep_reuse import WEIGHTS_FROM
from guided_diffusion.training.resume.train_longer import CONTINUED_FROM
from guided_diffusion.utils.files import atomic_write


def prepare_folder(trainer: Trainer, settings: dict[str, Any], start: Start) -> Start:
    """Keep aside what another run has left in the folder, and write config, command and environment of a new run.

    A run that goes on keeps its records. Only the first process writes.

    Args:
        trainer: The trainer, before it trains.
        settings: The resolved config.
        start: Where the training starts.

    Returns:
        The start, with the new path of its checkpoint if that was moved.

    Raises:
        ValueError: If the checkpoint would have to be moved while other processes, which this one has not started, are
            about to read it.
    """
    _check_can_move(trainer, start)
    if trainer.is_global_zero:
        if not start.in_place:
            start = _moved(start, keep_aside(start.folder))
            set_inherited_start(start)
        if not start.in_place or start.restarted:
            _write_records(settings, start, trainer.strategy.root_device.type)
        elif not same_training(settings, config_of(start.folder)):  # it samples otherwise, or the file was missing
            _save_config(settings, start)
        (start.folder / STOPPED).unlink(missing_ok=True)
    return start


def _moved(start: Start, moved: dict[Path, Path]) -> Start:
    """Return the start with the new path of its checkpoint if that is among the moved files."""
    if start.checkpoint not in moved:
        return start
    checkpoint, origin = moved[start.checkpoint], start.origin
    if origin and start.longer:
        origin = origin | {"checkpoint": str(checkpoint)}
    return replace(start, checkpoint=checkpoint, origin=origin)


def _check_can_move(trainer: Trainer, start: Start) -> None:
    is_in_folder = start.checkpoint is not None and start.folder in start.checkpoint.parents
    if is_in_folder and not start.in_place and trainer.world_size > 1 and trainer.strategy.launcher is None:
        raise ValueError(f"output_dir: {start.folder} is the folder of the run to go on from: choose another")


def _write_records(settings: dict[str, Any], start: Start, device: str) -> None:
    folder = start.folder
    for name in (FINISHED, WEIGHTS_FROM, CONTINUED_FROM):  # those of an earlier run
        (folder / name).unlink(missing_ok=True)
    if start.reused:
        (folder / WEIGHTS_FROM).write_text(f"{start.checkpoint}\n", encoding="utf-8")
    elif start.checkpoint and (metrics := start.checkpoint.parent.parent / "metrics.csv").is_file():
        shutil.copyfile(metrics, folder / "metrics.csv")
    if start.origin:
        with atomic_write(folder / CONTINUED_FROM) as path:
            OmegaConf.save(OmegaConf.create(start.origin), path)
    _save_config(settings, start)
    (folder / "command.txt").write_text(command() + "\n", encoding="utf-8")
    write_record(folder, settings["seed"], device)


def _save_config(settings: dict[str, Any], start: Start) -> None:
    with atomic_write(start.folder / "config.yaml") as path:
        OmegaConf.save(OmegaConf.create(settings), path)
