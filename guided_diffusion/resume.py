"""Going on with a training that was interrupted, or taking the weights of one that is done: from which checkpoint."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pytorch_lightning.utilities import rank_zero_only

from guided_diffusion.files import fingerprint, whole_file
from guided_diffusion.model_files import read_model_file
from guided_diffusion.programs import LOCKS

FINISHED = "finished.txt"
"""In the folder of a run: it has done all that it was started for."""

WEIGHTS_FROM = "weights_from.txt"
"""In the folder of a job of a sweep that had nothing to train: the checkpoint of the job that had trained the same."""

DECIDING = ("seed", "label_dropout", "data", "network", "schedule", "weighting", "module", "trainer", "callbacks.ema")
"""What decides the weights, save for what is in ``WATCHING``."""

WATCHING = (
    "name",
    "output_dir",
    "resume",
    "classifier",
    "scales",
    "untaught_scales",
    "guidance",
    "threshold",
    "sampler",
    "recipe",
    "judge",
    "logger",
    *(
        f"callbacks.{name}"
        for name in (
            "last",
            "best",
            "finite",
            "throughput",
            "progress",
            "learning_rate",
            "sample_grid",
            "accuracy",
            "distance",
            "noise",
            "guide",
        )
    ),
    "data.root",
    *(
        f"trainer.{name}"
        for name in (
            "default_root_dir",
            "log_every_n_steps",
            "val_check_interval",
            "check_val_every_n_epoch",
            "limit_val_batches",
            "num_sanity_val_steps",
            "enable_model_summary",
            "enable_progress_bar",
        )
    ),
)
"""What changes nothing of the weights. A key that is in neither is one that a user has added: it may decide them."""

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
    os.environ[_STARTED] = _packed(start)
    return start


def rank() -> int:
    """Of this process, known before there is a trainer."""
    return rank_zero_only.rank  # type: ignore[attr-defined]


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
    if sweep is None or decided or int(os.environ.get("SLURM_NTASKS", "1")) > 1:  # these tasks can't be told of it
        yield start
        return
    with _turn(sweep / LOCKS.replace("*", training_fingerprint(config))):
        runs = [path.parent for path in sweep.rglob(FINISHED)]
        runs += search if config.get("resume") == "auto" else []
        if checkpoint := last_of_same_weights(config, runs):
            start = replace(start, checkpoint=checkpoint, taken=True)
            _say(f"nothing to train: {checkpoint} is of the same training")
            os.environ[_STARTED] = _packed(start)
        yield start


def last_of_same_weights(config: dict[str, Any], runs: Iterable[Path]) -> Path | None:
    """The last checkpoint of the newest of these runs that has trained what this resolved config would."""
    fingerprint = training_fingerprint(config)
    found = [
        run / "checkpoints" / "last.ckpt"
        for run in runs
        if (run / FINISHED).is_file()
        and (run / "checkpoints" / "last.ckpt").is_file()
        and training_fingerprint(_config_of(run)) == fingerprint
    ]
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def training_fingerprint(config: dict[str, Any]) -> str:
    """Of all of a resolved config that may decide the weights."""
    return fingerprint({key: value for key, value in _flat(config).items() if not _within(key, WATCHING)})


def mark_finished(folder: Path) -> None:
    with whole_file(folder / FINISHED) as path:
        path.write_text(f"{datetime.now().astimezone().isoformat(timespec='seconds')}\n")


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one training at a time in a folder, held by its first process; the system lets go when that dies.

    Raises:
        ValueError: if another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if rank() == 0 and not _lock(descriptor):
            raise ValueError(f"another process is training in {folder}")
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """One process at a time; the system gives the turn to the next when one dies."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        if not _lock(file.fileno()):
            _say("waiting: another job of this sweep does the same training")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def same_training(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two resolved configs are equal in all but where the outputs are."""
    return _placeless(one) == _placeless(other)


def differences(config: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """The keys in which two resolved configs differ, of those that decide the weights."""
    one, two = _flat(config), _flat(other)
    return sorted(key for key in one.keys() | two.keys() if _decides(key) and one.get(key) != two.get(key))


def _newest(config: dict[str, Any], folder: Path, search: Sequence[Path]) -> Start:
    anew = Start(folder)
    for run in sorted(search, key=_touched, reverse=True):
        if not same_training(config, _config_of(run)):
            continue
        if _is_running(run):
            _say(f"resume=auto: {run} is left alone: another process is training there")
        elif (run / FINISHED).is_file():
            _say(f"resume=auto: {run} has finished: there is nothing left to train")
            return Start(run, finished=True)
        elif start := _last_whole(run):
            _say(f"resume=auto: going on from step {start.step} in {run}")
            return start
        elif anew.folder == folder:
            anew = Start(run)
    where = f" in {anew.folder}, which has no checkpoint yet" if anew.folder != folder else ""
    _say(f"resume=auto: no interrupted run with a checkpoint: starting anew{where}")
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
    keys = differences(config, read_model_file(start.checkpoint)["guided_diffusion"]["config"])
    if keys:
        raise ValueError(f"resume: {start.checkpoint} is of another training, which differs in {', '.join(keys)}")
    if (start.folder / FINISHED).is_file():
        _say(f"resume: {start.folder} has finished: there is nothing left to train")
        return Start(start.folder, finished=True)
    _say(f"resume: going on from step {start.step} in {start.folder}")
    return start


def _last_whole(run: Path) -> Start | None:
    """The run from its newest checkpoint that can be read."""
    checkpoints = sorted((run / "checkpoints").glob("*.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in checkpoints:
        try:
            return _start_from(path, run)
        except ValueError as error:
            _say(f"skipped: {error}")
    return None


def _start_from(path: Path, folder: Path) -> Start:
    saved = read_model_file(path)
    if "loops" not in saved or "optimizer_states" not in saved:
        raise ValueError(f"{path} holds weights alone: training can't go on from it")
    return Start(folder, path, saved["global_step"], saved.get("metrics_rows", 0))


def _config_of(run: Path) -> dict[str, Any]:
    try:
        config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    except Exception:  # cut off in the middle, or another file of this name: in any case no run of this training
        return {}
    return config if isinstance(config, dict) else {}  # type: ignore[return-value]


def _touched(run: Path) -> float:
    """When the run last got further."""
    return max(path.stat().st_mtime for path in [run / "config.yaml", *(run / "checkpoints").glob("*.ckpt")])


def _placeless(config: dict[str, Any]) -> dict[str, Any]:
    place = str(config.get("output_dir"))
    return {
        key: value.replace(place, "") if isinstance(value, str) else value
        for key, value in _flat(config).items()
        if key not in ("resume", "output_dir")
    }


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    """Nested dicts and lists as one, by dotted keys."""
    if not isinstance(node, dict | list):
        return {prefix: node}
    items: Iterable[tuple[Any, Any]] = node.items() if isinstance(node, dict) else enumerate(node)
    empty = {} if node else {prefix: type(node)()}
    return empty | {
        key: value
        for name, child in items
        for key, value in _flat(child, f"{prefix}.{name}" if prefix else str(name)).items()
    }


def _decides(key: str) -> bool:
    return _within(key, DECIDING) and not _within(key, WATCHING)


def _within(key: str, parts: Iterable[str]) -> bool:
    return any(f"{key}.".startswith(f"{part}.") for part in parts)


def _is_running(run: Path) -> bool:
    if rank():
        return False  # what runs there may be the first process of this very training
    descriptor = os.open(run, os.O_RDONLY)
    try:
        return not _lock(descriptor)
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _packed(start: Start) -> str:
    return json.dumps(asdict(start), default=str)


def _unpacked(text: str) -> Start:
    start = json.loads(text)
    checkpoint = start["checkpoint"] and Path(start["checkpoint"])
    return Start(**start | {"folder": Path(start["folder"]), "checkpoint": checkpoint})


@rank_zero_only
def _say(line: str) -> None:
    print(line, flush=True)
