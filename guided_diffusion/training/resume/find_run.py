"""Finding where a training starts: which run it continues, from which checkpoint, in which folder."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from guided_diffusion.checkpoints.files import read_model_file
from guided_diffusion.training.resume.fingerprint import differing_weight_keys, is_of_training, same_training
from guided_diffusion.training.resume.hints import hint_of_other_runs
from guided_diffusion.training.resume.run_files import FINISHED, checkpoints_in, config_of, last_modified, last_saved
from guided_diffusion.training.resume.train_longer import (
    CONTINUED_FROM,
    continued_checkpoint,
    describe,
    origin_of,
    refused_keys,
)
from guided_diffusion.utils.distributed import rank, rank_zero_print
from guided_diffusion.utils.locks import try_folder_lock

INHERITED_START = "GUIDED_DIFFUSION_START"
"""The environment variable by which the first process hands its ``Start`` to the processes that it starts.

They run the same program, but must not search for themselves: by then the folder of the first process is a run that is
in use. The value is JSON. Only processes of rank 1 and above read it.
"""


@dataclass(frozen=True)
class Start:
    """The run in which a training starts, and the checkpoint from which it continues, ``None`` to start anew."""

    folder: Path
    checkpoint: Path | None = None
    step: int = 0
    """The step of the checkpoint."""
    metrics_rows: int = 0
    """The number of rows of ``metrics.csv`` that were written before the checkpoint."""
    finished: bool = False
    reused: bool = False
    """Whether the checkpoint is the last one of another run, so that nothing is left to train."""
    restarted: bool = False
    """Whether the folder is that of an earlier run of this training that saved no checkpoint."""
    longer: bool = False
    """Whether the checkpoint is of a run with other settings (see ``train_longer``)."""
    origin: dict[str, Any] | None = None
    """The value of ``origin_of`` if this run continues from a checkpoint with other settings, or an earlier one did."""

    @property
    def note(self) -> dict[str, Any]:
        """The entry for the origin in the record of the training's checkpoints; empty without an origin."""
        return {"continued_from": self.origin} if self.origin else {}

    @property
    def in_place(self) -> bool:
        """Whether the folder belongs to the same run, so that nothing of another run must be kept aside."""
        parent = self.checkpoint.resolve().parent if self.checkpoint else None
        is_own = parent == (self.folder / "checkpoints").resolve()
        return self.restarted or (is_own and not self.reused and not self.longer)


def find_start(config: dict[str, Any], folder: Path, search: Sequence[Path]) -> Start:
    """Return where a training starts according to its ``resume``, and print it on one line.

    ``auto`` continues the newest run of the same training: its ``config.yaml`` and the config in its checkpoint are
    the same except for the folder. A run without a checkpoint, or in which all are damaged, starts anew in its folder.
    A path continues that run in its folder; if settings differ that may change (see ``train_longer``), in ``folder``.

    Args:
        folder: The folder of a new run.
        search: The folders of the runs that ``auto`` may continue.

    Raises:
        FileNotFoundError: If ``resume`` is a path that does not exist.
        OSError: If the system can't read a checkpoint, which may be intact.
        ValueError: If ``resume`` is a path and this training can't continue from what is there.
    """
    if rank() and INHERITED_START in os.environ:
        saved = json.loads(os.environ[INHERITED_START])
        paths = {name: saved[name] and Path(saved[name]) for name in ("folder", "checkpoint")}
        return Start(**saved | paths)
    start, resume = Start(folder), config.get("resume")
    if resume:
        start = _find_newest(config, folder, search) if resume == "auto" else _find_path(config, folder, Path(resume))
    set_inherited_start(start)
    return start


def set_inherited_start(start: Start) -> None:
    """Hand this start to the processes that the first process starts from now on; in other processes, do nothing."""
    if not rank():
        os.environ[INHERITED_START] = json.dumps(asdict(start), default=str)


def clear_inherited_start() -> None:
    """Remove the start that was handed on, so that the processes of the next job do not get it."""
    os.environ.pop(INHERITED_START, None)


@contextmanager
def folder_lock(folder: Path) -> Iterator[None]:
    """Let only one training at a time use a folder. The system frees the lock when its process dies.

    Raises:
        ValueError: If another process is training there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with _try_folder_lock(folder) as is_free:
        if not is_free:
            raise ValueError(f"another process is training in {folder}")
        yield


@contextmanager
def _try_folder_lock(folder: Path) -> Iterator[bool]:
    """Yield whether the folder is free, always True for rank 1 and above: their own first process may hold the lock."""
    if rank():
        yield True
        return
    with try_folder_lock(folder) as is_free:
        yield is_free


def _find_newest(config: dict[str, Any], folder: Path, search: Sequence[Path]) -> Start:
    anew = None
    for run in sorted(search, key=last_saved, reverse=True):
        if not same_training(config, config_of(run)):
            continue
        with _try_folder_lock(run) as is_free:
            pass
        if not is_free:
            rank_zero_print(f"resume=auto: skipped {run}: another process is training there")
            continue
        start, has_others = _own_start(config, run)
        if (has_others and not start) or (run / CONTINUED_FROM).is_file():
            rank_zero_print(f"resume=auto: skipped {run}: its checkpoints are of another training")
        elif (run / FINISHED).is_file():
            rank_zero_print(f"resume=auto: {run} has finished: there is nothing left to train")
            return Start(run, finished=True)
        elif start:
            rank_zero_print(f"resume=auto: continuing from step {start.step} in {run}")
            return start
        elif anew is None:  # damaged checkpoints are kept aside
            anew = Start(run, restarted=not checkpoints_in(run))
    anew = anew or Start(folder)
    where = f" in {anew.folder}, which has no checkpoint that can be read" if anew.folder != folder else ""
    hint = hint_of_other_runs(config, folder, search)
    rank_zero_print(f"resume=auto: no interrupted run of this training has a checkpoint: starting anew{where}{hint}")
    return anew


def _own_start(config: dict[str, Any], run: Path) -> tuple[Start | None, bool]:
    """Return the start from the newest checkpoint that this training saved in a folder, and whether others are newer.

    The config in the checkpoint decides, because a new training in the same folder replaces ``config.yaml``.
    """
    has_others = False
    for start, content in _starts(run):
        if is_of_training(content["guided_diffusion"], config):
            return start, has_others
        has_others = True
    return None, has_others


def _find_path(config: dict[str, Any], folder: Path, path: Path) -> Start:
    """Return the start for ``resume=path``, a run or a checkpoint."""
    if not path.exists():
        raise FileNotFoundError(f"resume: there is no run or checkpoint at {path.absolute()}")
    if path.is_dir():
        start, content = next(_starts(path.absolute()), None) or _start_of_origin(path.absolute())
    else:
        run = path.absolute().parent.parent
        start, content = _start_from_checkpoint(path.absolute(), run if (run / "config.yaml").is_file() else folder)
    assert start.checkpoint
    saved = content["guided_diffusion"]["config"]
    keys = differing_weight_keys(config, saved)
    if refused := refused_keys(config, saved):
        raise ValueError(
            f"resume: {start.checkpoint} belongs to another training, which differs in {', '.join(refused)}; "
            "init_from=PATH starts a new training from its weights"
        )
    if keys:
        origin = origin_of(config, start.checkpoint, content)
        return _find_longer(config, replace(start, folder=folder, longer=True, origin=origin), content)
    if (start.folder / FINISHED).is_file():
        rank_zero_print(f"resume: {start.folder} has finished: there is nothing left to train")
        return Start(start.folder, finished=True)
    rank_zero_print(f"resume: continuing from step {start.step} in {start.folder}")
    return start


def _start_of_origin(run: Path) -> tuple[Start, dict[str, Any]]:
    """Return the start from the checkpoint that a run continued from, for a run that has not saved one of its own."""
    if checkpoint := continued_checkpoint(run):
        return _start_from_checkpoint(checkpoint, run)
    aside = max(run.glob("earlier_*/checkpoints/*.ckpt"), key=last_modified, default=None)
    hint = f"; an earlier run there has {aside}: resume={aside}" if aside else ""
    raise ValueError(f"resume: no checkpoint can be read in {run / 'checkpoints'}{hint}")


def _find_longer(config: dict[str, Any], longer: Start, content: dict[str, Any]) -> Start:
    """Return the start from a run that has begun like this one in the same folder, or else the given start."""
    assert longer.origin
    for start, saved in _starts(longer.folder):
        record = saved["guided_diffusion"]
        origin = record.get("continued_from", {})
        if origin == longer.origin and not differing_weight_keys(config, record["config"]):
            finished = (longer.folder / FINISHED).is_file()
            what = "has finished: there is nothing left to train" if finished else f"continuing from step {start.step}"
            rank_zero_print(f"resume: {longer.folder} goes on from {origin['checkpoint']}: {what}")
            return Start(longer.folder, finished=True) if finished else start
    rank_zero_print(f"resume: {describe(longer.origin, content)}")
    return longer


def _starts(run: Path) -> Iterator[tuple[Start, dict[str, Any]]]:
    """Yield the start from each undamaged checkpoint of a run, newest first, with the checkpoint's content.

    Raises:
        OSError: If the system can't read the folder or a checkpoint, which may be intact.
    """
    for path in sorted(checkpoints_in(run), key=last_modified, reverse=True):
        try:
            yield _start_from_checkpoint(path, run)
        except (FileNotFoundError, ValueError) as error:  # another process may have moved the file
            rank_zero_print(f"skipped: {error}")


def _start_from_checkpoint(path: Path, folder: Path) -> tuple[Start, dict[str, Any]]:
    saved = read_model_file(path)
    if "loops" not in saved or "optimizer_states" not in saved:
        raise ValueError(f"{path} holds only weights: training can't continue from it")
    origin = saved["guided_diffusion"].get("continued_from")
    return Start(folder, path, saved["global_step"], saved.get("metrics_rows", 0), origin=origin), saved
