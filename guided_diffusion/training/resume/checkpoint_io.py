"""Writing checkpoints so that neither an interruption nor a full disk leaves half of one."""

from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from guided_diffusion.utils.files import flush_to_disk, why_not_saved

PART = ".part"
"""The suffix of unfinished files; nothing reads them, and the next checkpoint overwrites them."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's file format for checkpoints, written beside the final path and then renamed.

    Lightning itself writes to the temporary folder and then moves the file, which copies it if the disks differ.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Save the checkpoint, or raise ``OSError`` and leave the file that was there before."""
        path = Path(path)
        part = path.with_name(path.name + PART)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with part.open("wb") as file:  # given a path, torch.save hides the system's error
                torch.save(checkpoint, file)
            flush_to_disk(part)
            part.replace(path)
            flush_to_disk(path.parent)
        except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError for a file it could not write
            part.unlink(missing_ok=True) if path.parent.is_dir() else None
            raise OSError(
                f"the checkpoint could not be saved in {path.parent}: {why_not_saved(error)}; "
                "the one before it is intact: continue from it with resume=auto"
            ) from error
