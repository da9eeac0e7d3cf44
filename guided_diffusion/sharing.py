"""One training for all jobs of a sweep that differ only in what changes nothing of the weights."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from guided_diffusion.identity import training_fingerprint
from guided_diffusion.locks import turn
from guided_diffusion.resume import FINISHED, Start, config_of, decide, say
from guided_diffusion.strategies import rank

WEIGHTS_FROM = "weights_from.txt"
"""In the folder of a job of a sweep that had nothing to train: the checkpoint of the job that had trained the same."""


@contextmanager
def trained_once(config: dict[str, Any], start: Start, sweep: Path | None, search: Sequence[Path]) -> Iterator[Start]:
    """Where the training of this resolved config starts if it is a job of a sweep.

    Of jobs that differ only in what changes nothing of the weights, one trains, and the others start from its last
    checkpoint, with nothing left to train; a job that comes while it trains waits. Says on one line what it is.

    Args:
        config: of the training.
        start: what ``find_start`` has found.
        sweep: the folder of the sweep, ``None`` if there is none.
        search: folders of other runs that may have trained the same, if ``resume`` is ``auto``.
    """
    decided = start.finished or start.checkpoint or rank()
    several_tasks = int(os.environ.get("SLURM_NTASKS", "1")) > 1  # which can't be told what the first one finds
    if sweep is None or decided or several_tasks:
        yield start
        return
    path = sweep / f".training-{training_fingerprint(config)}.lock"
    with turn(path, "another job of this sweep does the same training"):
        runs = [path.parent for path in sweep.rglob(FINISHED)]
        runs += search if config.get("resume") == "auto" else []
        if checkpoint := last_of_same_weights(config, runs):
            start = replace(start, checkpoint=checkpoint, taken=True)
            say(f"nothing to train: {checkpoint} is of the same training")
            decide(start)
        yield start


def last_of_same_weights(config: dict[str, Any], runs: Iterable[Path]) -> Path | None:
    """The last checkpoint of the newest of these runs that has trained what this resolved config would."""
    fingerprint = training_fingerprint(config)
    found = [
        run / "checkpoints" / "last.ckpt"
        for run in runs
        if (run / FINISHED).is_file()
        and (run / "checkpoints" / "last.ckpt").is_file()
        and training_fingerprint(config_of(run)) == fingerprint
    ]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)
