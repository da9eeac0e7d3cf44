"""One training for all jobs of a sweep that differ only in what changes nothing of the weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from guided_diffusion.checkpoints.files import LAST, read_model_file
from guided_diffusion.training.resume.find_run import FINISHED, Start, config_of, share_start
from guided_diffusion.training.resume.fingerprint import training_fingerprint
from guided_diffusion.utils.distributed import rank, rank_zero_print
from guided_diffusion.utils.locks import file_lock

WEIGHTS_FROM = "weights_from.txt"
"""In the folder of a job of a sweep that had nothing to train: the checkpoint of the job that had trained the same."""


@contextmanager
def reuse_training(config: dict[str, Any], start: Start, sweep: Path | None, search: Sequence[Path]) -> Iterator[Start]:
    """Where the training of this resolved config starts if it is a job of a sweep.

    Of jobs that differ only in what changes nothing of the weights, one trains, and the others start from its last
    checkpoint, with nothing left to train; a job that comes while it trains waits. Says on one line what it is. Jobs
    without ``callbacks.last`` leave no such checkpoint and share nothing, nor do those that Slurm starts as several
    tasks, which can't be told what the first one finds.

    Args:
        config: of the training.
        start: what ``find_start`` has found.
        sweep: the folder of the sweep, ``None`` if there is none.
        search: folders of other runs that may have trained the same, if ``resume`` is ``auto``.
    """
    if sweep is None or rank() or not config["callbacks"].get("last"):
        yield start
        return
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        rank_zero_print("this job trains by itself: several Slurm tasks can't share a training with others")
        yield start
        return
    with ExitStack() as alone:
        path = sweep / f".training-{training_fingerprint(config)}.lock"
        alone.enter_context(file_lock(path, "another job of this sweep does the same training"))
        runs = [*_finished_in(sweep), *search] if config.get("resume") == "auto" else _finished_since_it_began(sweep)
        if start.checkpoint is None and (checkpoint := find_trained_checkpoint(config, runs)):
            alone.close()  # others may sample at the same time
            start = replace(start, checkpoint=checkpoint, taken=True)
            rank_zero_print(f"nothing to train: {checkpoint} is of the same training")
            share_start(start)
        yield start


def find_trained_checkpoint(config: dict[str, Any], runs: Iterable[Path]) -> Path | None:
    """The last checkpoint of the newest of these runs that has trained what this resolved config would.

    One that took its weights from another counts only where none has trained them.
    """
    fingerprint = training_fingerprint(config)
    same = [run for run in runs if (run / FINISHED).is_file() and training_fingerprint(config_of(run)) == fingerprint]
    found = [path for run in same if _fingerprint_of(path := run / LAST) == fingerprint]
    return max(found, key=lambda path: (not _taken(path), path.stat().st_mtime), default=None)


def _taken(checkpoint: Path) -> bool:
    return (checkpoint.parents[1] / WEIGHTS_FROM).is_file()


def _fingerprint_of(checkpoint: Path) -> str | None:
    """Of the training that a checkpoint is of; ``None`` if it can't be read."""
    try:
        return training_fingerprint(read_model_file(checkpoint)["guided_diffusion"]["config"])
    except (OSError, ValueError):
        return None


def _finished_in(sweep: Path) -> list[Path]:
    return [path.parent for path in sweep.rglob(FINISHED)]


def _finished_since_it_began(sweep: Path) -> list[Path]:
    """A sweep that is started again in its folder trains again. Hydra writes ``multirun.yaml`` before the first job."""
    began = sweep / "multirun.yaml"
    since = began.stat().st_mtime if began.is_file() else 0
    return [run for run in _finished_in(sweep) if (run / FINISHED).stat().st_mtime >= since]
