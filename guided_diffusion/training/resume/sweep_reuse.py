"""Train once per distinct training config of a sweep, by its ``fingerprint``; other jobs reuse the checkpoint."""

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from guided_diffusion.checkpoints.files import LAST, read_model_file
from guided_diffusion.training.resume.find_run import Start, set_inherited_start
from guided_diffusion.training.resume.fingerprint import is_of_training, training_fingerprint
from guided_diffusion.training.resume.run_files import FINISHED, config_of
from guided_diffusion.utils.distributed import rank, rank_zero_print
from guided_diffusion.utils.locks import file_lock

WEIGHTS_FROM = "weights_from.txt"
"""The file, in the folder of a job that trained nothing, with the path of the checkpoint that it reused."""


@contextmanager
def reuse_training(config: dict[str, Any], start: Start, sweep: Path | None, search: Sequence[Path]) -> Iterator[Start]:
    """Yield where a job of a sweep starts, maybe from the checkpoint of another job that has trained the same weights.

    Jobs whose configs have the same ``training_fingerprint`` train once. The others start from the last checkpoint of
    that training, with no step left; a job that comes while it runs waits for it. A job trains for itself if it is in
    no sweep, has no ``callbacks.last``, or has several Slurm tasks, which can't know what the first one finds.

    Args:
        sweep: The folder of the sweep, ``None`` if there is none.
        search: The folders of earlier runs that may have trained the same, for ``resume=auto``.
    """
    if sweep is None or rank() or not config["callbacks"].get("last"):
        yield start
        return
    if int(os.environ.get("SLURM_NTASKS", "1")) > 1:
        rank_zero_print("this job trains for itself: with several Slurm tasks it can't reuse another job's checkpoint")
        yield start
        return
    with ExitStack() as lock:
        path = sweep / f".training-{training_fingerprint(config)}.lock"
        lock.enter_context(file_lock(path, "another job of this sweep does the same training"))
        runs = _runs_of_this_sweep(sweep)
        if config.get("resume") == "auto":
            runs = [path.parent for path in sweep.rglob(FINISHED)] + list(search)
        if start.checkpoint is None and (checkpoint := find_trained_checkpoint(config, runs)):
            lock.close()  # others may sample at the same time
            start = replace(start, checkpoint=checkpoint, reused=True)
            rank_zero_print(f"nothing to train: {checkpoint} is of the same training")
            set_inherited_start(start)
        yield start


def find_trained_checkpoint(config: dict[str, Any], runs: Iterable[Path]) -> Path | None:
    """Return the newest last checkpoint among the finished runs with the same training fingerprint.

    A run that reused its weights is chosen only if none of the runs trained them.
    """
    fingerprint = training_fingerprint(config)
    same = [run for run in runs if (run / FINISHED).is_file() and training_fingerprint(config_of(run)) == fingerprint]
    found = [path for run in same if _was_saved_by(path := run / LAST, config)]
    return max(found, key=_trained_and_new, default=None)


def _trained_and_new(checkpoint: Path) -> tuple[bool, float]:
    return not (checkpoint.parents[1] / WEIGHTS_FROM).is_file(), checkpoint.stat().st_mtime


def _was_saved_by(checkpoint: Path, config: dict[str, Any]) -> bool:
    """Return whether a checkpoint can be read and was saved by the training that this config describes."""
    try:
        return is_of_training(read_model_file(checkpoint)["guided_diffusion"], config)
    except (OSError, ValueError):
        return False


def _runs_of_this_sweep(sweep: Path) -> list[Path]:
    """Return the runs that finished since the sweep began, so that a repeated sweep trains again."""
    began = sweep / "multirun.yaml"  # Hydra writes it before the first job
    since = began.stat().st_mtime if began.is_file() else 0
    return [path.parent for path in sweep.rglob(FINISHED) if path.stat().st_mtime >= since]
