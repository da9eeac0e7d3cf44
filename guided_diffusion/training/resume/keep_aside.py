"""Keeping what an earlier run left in a folder, so that a new run there neither replaces it nor mixes with it."""

from datetime import datetime
from pathlib import Path

RECORDS = ("hparams.yaml", "command.txt", "environment.json", "reproduce.sh", "config.yaml")
"""The files that every run writes at its start. They are not kept if they are all that a run left."""

RESULTS = (
    *("finished.txt", "stopped.txt", "weights_from.txt", "continued_from.txt", "metrics.csv", "samples/step_*.png"),
    *("accuracy_by_*.*", "distance_by_*.*", "tensorboard/events.*", "tensorboard/hparams.yaml"),
    "wandb_run.json",
    *("checkpoints/*.part", "checkpoints/*.ckpt"),
)
"""The patterns of the other files that a run writes, except for those of W&B, which have a folder for each run."""


def keep_aside(folder: Path) -> dict[Path, Path]:
    """Move what an earlier run wrote into a folder ``earlier_<when it began>`` in the same place, and print its path.

    Other files stay where they are. ``config.yaml`` is moved last: if the program dies before that, the next program
    moves the rest to the same folder.

    Returns:
        The new path of each file that was moved; empty if there was no earlier run or it left no results.
    """
    results = [path for pattern in RESULTS for path in sorted(folder.glob(pattern))]
    if not results:
        return {}
    found = [path.relative_to(folder) for path in (*results, *(folder / name for name in RECORDS)) if path.exists()]
    aside = _new_folder(folder, found)
    moved = {folder / path: aside / path for path in found}
    for path, target in moved.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        path.rename(target)
    print(f"an earlier run in {folder} is kept in {aside}")
    return moved


def _new_folder(folder: Path, paths: list[Path]) -> Path:
    """Return a folder, named after the time at which the earlier run began, in which none of these paths exists."""
    began = folder / ("config.yaml" if (folder / "config.yaml").exists() else paths[0])
    name = f"earlier_{datetime.fromtimestamp(began.stat().st_mtime):%Y-%m-%d_%H-%M-%S}"
    aside, number = folder / name, 1
    while any((aside / path).exists() for path in paths):
        number += 1
        aside = folder / f"{name}_{number}"
    return aside
