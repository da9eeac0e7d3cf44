"""The check that a program replaces only files of its own in its output folder."""

from pathlib import Path

from guided_diffusion.training.resume.keep_aside import RECORDS
from guided_diffusion.training.resume.run_files import config_of
from guided_diffusion.utils.distributed import rank

KEYS = {"training": ("module",), "sampling": ("checkpoint", "animate"), "evaluation": ("checkpoint", "judge")}
"""The keys by which the ``config.yaml`` of each kind of run is recognized."""


def check_own_folder(folder: Path, kind: str, *results: str) -> None:
    """Raise ``ValueError`` if a folder has files that would be replaced, but no ``config.yaml`` of a run of this kind.

    Args:
        folder: The folder, which need not exist.
        kind: The kind of run: ``training``, ``sampling`` or ``evaluation``.
        results: The names of further files that would be replaced.
    """
    found = [name for name in (*reversed(RECORDS), *results) if (folder / name).exists()]
    if rank() or not found:  # the first process may already be writing there
        return
    config = config_of(folder)
    is_training = "module" in config
    if is_training != (kind == "training") or not config.keys() >= {*KEYS[kind]}:
        raise ValueError(
            f"output_dir: {folder / found[0]} would be replaced, and {folder} does not hold an earlier {kind}: choose "
            "another folder"
        )
