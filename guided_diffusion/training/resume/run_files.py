"""What is in the folder of a run: its config, its checkpoints, and the file that marks it as finished."""

from datetime import datetime
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from guided_diffusion.checkpoints.renamed import update_targets
from guided_diffusion.utils.files import atomic_write

FINISHED = "finished.txt"
"""The file in a run's folder that marks the run as finished."""


def config_of(run: Path) -> dict[str, Any]:
    """Return the resolved config of a run, empty if there is none that can be read."""
    try:
        config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
    except Exception:  # half a file, or another program's: in any case no run of this training
        return {}
    return update_targets(config) if isinstance(config, dict) else {}


def mark_finished(folder: Path) -> None:
    """Write the time into the file that marks the run as finished."""
    with atomic_write(folder / FINISHED) as path:
        path.write_text(f"{datetime.now().astimezone().isoformat(timespec='seconds')}\n")


def checkpoints_in(run: Path) -> list[Path]:
    """Return the checkpoints of a run; raise ``OSError`` if the system can't read their folder."""
    folder = run / "checkpoints"
    inside = folder.iterdir() if folder.is_dir() else ()  # glob would pass over an error of the system
    return [path for path in inside if path.suffix == ".ckpt"]


def last_saved(run: Path) -> float:
    """Return the time of the last change of a run's config or checkpoints."""
    return max(map(last_modified, [run / "config.yaml", *(run / "checkpoints").glob("*.ckpt")]))


def last_modified(path: Path) -> float:
    """Return the time of the last change, 0 for a file that another process has just moved."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0
