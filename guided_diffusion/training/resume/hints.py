"""What ``resume=auto`` says of other runs if it finds none to continue: how they differ, and how to go on with them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from guided_diffusion.training.resume.fingerprint import differing_keys, differing_weight_keys
from guided_diffusion.training.resume.run_files import FINISHED, config_of, last_saved
from guided_diffusion.training.resume.train_longer import refused_keys

LENGTH_KEYS = frozenset(("trainer.max_steps", "trainer.max_epochs", "module.lr_scheduler.total_steps"))
"""The keys that decide how long a training takes."""

FEW = 5
"""The largest number of keys in which a run may differ that is worth naming."""


def hint_of_other_runs(config: dict[str, Any], folder: Path, search: Sequence[Path]) -> str:
    """Return how to continue another run with ``resume=RUN``, as the end of a line; an empty text if there is none.

    That is the newest run that differs only in that it is shorter, or else the newest interrupted run that differs in
    few keys. An interrupted run in ``folder`` itself comes before that, whatever it differs in.
    """
    newest = sorted((run for run in search if run != folder), key=last_saved, reverse=True)
    shorter = (_hint_of_shorter(config, run) for run in newest)
    interrupted = (_hint_of_interrupted(config, run) for run in newest)
    found = next(filter(None, shorter), "") or _hint_of_own_folder(config, folder)
    return found or next(filter(None, interrupted), "")


def _hint_of_shorter(config: dict[str, Any], run: Path) -> str:
    saved = config_of(run)
    if saved and {*differing_weight_keys(config, saved)} <= LENGTH_KEYS and _is_longer(config, saved):
        return f"; to train {run} longer: resume={run}"
    return ""


def _hint_of_own_folder(config: dict[str, Any], folder: Path) -> str:
    saved = config_of(folder)
    keys = differing_keys(config, saved) if _is_interrupted(folder, saved) else []
    if not keys:
        return ""
    mend = "" if refused_keys(config, saved) else "; it is moved aside, and resume=FOLDER goes on with it there"
    return f"; the interrupted run in {folder} differs in {', '.join(keys)}{mend}"


def _hint_of_interrupted(config: dict[str, Any], run: Path) -> str:
    saved = config_of(run)
    if not _is_interrupted(run, saved) or refused_keys(config, saved):
        return ""
    keys = differing_keys(config, saved)
    is_shorter = not LENGTH_KEYS.isdisjoint(keys) and not _is_longer(config, saved)
    if not 0 < len(keys) <= FEW or is_shorter:
        return ""
    return f"; {run} was interrupted and differs in {', '.join(keys)}: to go on with it, resume={run}"


def _is_interrupted(run: Path, saved: dict[str, Any]) -> bool:
    """Return whether a run, whose config is given, is a training that has saved a checkpoint and has not finished."""
    return "module" in saved and not (run / FINISHED).is_file() and any((run / "checkpoints").glob("*.ckpt"))


def _is_longer(config: dict[str, Any], saved: dict[str, Any]) -> bool:
    """Return whether a training has more steps or epochs than a run with this config."""
    lengths = [(saved["trainer"].get(key), config["trainer"].get(key)) for key in ("max_steps", "max_epochs")]
    return any((old or 0) < (new or 0) for old, new in lengths)
