"""Going on with a training that was interrupted: which run, from which checkpoint, in which folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from guided_diffusion.checkpoints.files import read_model_file
from guided_diffusion.checkpoints.renamed import update_targets
from guided_diffusion.training.resume.fingerprint import deciding_differences, same_training
from guided_diffusion.utils.distributed import rank, rank_zero_print
from guided_diffusion.utils.files import atomic_write
from guided_diffusion.utils.locks import try_lock

FINISHED = "finished.txt"
"""In the folder of a run: it has done all that it was started for."""


_STARTED = "GUIDED_DIFFUSION_START"
"""In the environment of the processes that the first one starts: what it has decided."""


@dataclass(frozen=True)
class Start:
    """Where a training starts."""

    folder: Path
    """Of the run."""
    checkpoint: Path | None = None
    """To go on from; ``None`` to start anew."""
    step: int = 0
    """Of the checkpoint."""
    rows: int = 0
    """Of ``metrics.csv`` that were written before the checkpoint."""
    finished: bool = False
    """There is nothing left to do."""
    taken: bool = False
    """The checkpoint is that of another run, with nothing left to train."""


def find_start(config: dict[str, Any], folder: Path, search: Sequence[Path]) -> Start:
    """Where the training of this resolved config starts, by its ``resume``; says on one line what it is.

    ``auto`` takes the newest run of the same training: its config is this one in all but the folder. A run of
    which no checkpoint is whole starts anew, in its folder.

    Args:
        config: of the training.
        folder: of a new run.
        search: folders of runs that ``auto`` may go on with.

    Raises:
        FileNotFoundError, ValueError: if ``resume`` is a path and there is no checkpoint that this training can
            go on from.
    """
    if rank() and _STARTED in os.environ:
        return _unpacked(os.environ[_STARTED])
    start, resume = Start(folder), config.get("resume")
    if resume:
        start = _newest(config, folder, search) if resume == "auto" else _given(config, folder, Path(resume))
    share_start(start)
    return start


def share_start(start: Start) -> None:
    """Let the processes that the first one starts know."""
    if not rank():
        os.environ[_STARTED] = json.dumps(asdict(start), default=str)


def clear_shared_start() -> None:
    """What was decided holds no longer."""
    os.environ.pop(_STARTED, None)


def config_of(run: Path) -> dict[str, Any]:
    """The resolved config of a run, empty where there is none that can be read."""
    try:
        config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    except Exception:  # cut off in the middle, or another file of this name: in any case no run of this training
        return {}
    return update_targets(config) if isinstance(config, dict) else {}


def mark_finished(folder: Path) -> None:
    with atomic_write(folder / FINISHED) as path:
        path.write_text(f"{datetime.now().astimezone().isoformat(timespec='seconds')}\n")


@contextmanager
def exclusive_folder(folder: Path) -> Iterator[None]:
    """Only one training at a time in a folder, held by its first process; the system lets go when that dies.

    Raises:
        ValueError: if another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if rank() == 0 and not try_lock(descriptor):
            raise ValueError(f"another process is training in {folder}")
        yield
    finally:
        os.close(descriptor)


def _newest(config: dict[str, Any], folder: Path, search: Sequence[Path]) -> Start:
    anew = Start(folder)
    for run in sorted(search, key=_touched, reverse=True):
        if not same_training(config, config_of(run)):
            continue
        if _is_running(run):
            rank_zero_print(f"resume=auto: {run} is left alone: another process is training there")
        elif (run / FINISHED).is_file():
            rank_zero_print(f"resume=auto: {run} has finished: there is nothing left to train")
            return Start(run, finished=True)
        elif start := _last_whole(run):
            rank_zero_print(f"resume=auto: going on from step {start.step} in {run}")
            return start
        elif anew.folder == folder:
            anew = Start(run)
    where = f" in {anew.folder}, which has no checkpoint yet" if anew.folder != folder else ""
    rank_zero_print(f"resume=auto: no interrupted run with a checkpoint: starting anew{where}")
    return anew


def _given(config: dict[str, Any], folder: Path, path: Path) -> Start:
    if not path.exists():
        raise FileNotFoundError(f"resume: there is no run or checkpoint at {path.absolute()}")
    if path.is_dir():
        start = _last_whole(path.absolute())
        if start is None:
            raise ValueError(f"resume: there is no whole checkpoint in {path / 'checkpoints'}")
    else:
        run = path.absolute().parent.parent
        start = _start_from(path.absolute(), run if (run / "config.yaml").is_file() else folder)
    assert start.checkpoint
    keys = deciding_differences(config, read_model_file(start.checkpoint)["guided_diffusion"]["config"])
    if keys:
        raise ValueError(f"resume: {start.checkpoint} is of another training, which differs in {', '.join(keys)}")
    if (start.folder / FINISHED).is_file():
        rank_zero_print(f"resume: {start.folder} has finished: there is nothing left to train")
        return Start(start.folder, finished=True)
    rank_zero_print(f"resume: going on from step {start.step} in {start.folder}")
    return start


def _last_whole(run: Path) -> Start | None:
    """The run from its newest checkpoint that can be read."""
    checkpoints = sorted((run / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in checkpoints:
        try:
            return _start_from(path, run)
        except ValueError as error:
            rank_zero_print(f"skipped: {error}")
    return None


def _start_from(path: Path, folder: Path) -> Start:
    saved = read_model_file(path)
    if "loops" not in saved or "optimizer_states" not in saved:
        raise ValueError(f"{path} holds weights alone: training can't go on from it")
    return Start(folder, path, saved["global_step"], saved.get("metrics_rows", 0))


def _touched(run: Path) -> float:
    """When the run last got further."""
    return max(path.stat().st_mtime for path in [run / "config.yaml", *(run / "checkpoints").glob("*.ckpt")])


def _is_running(run: Path) -> bool:
    if rank():
        return False  # what runs there may be the first process of this very training
    descriptor = os.open(run, os.O_RDONLY)
    try:
        return not try_lock(descriptor)
    finally:
        os.close(descriptor)


def _unpacked(text: str) -> Start:
    start = json.loads(text)
    checkpoint = start["checkpoint"] and Path(start["checkpoint"])
    return Start(**start | {"folder": Path(start["folder"]), "checkpoint": checkpoint})
