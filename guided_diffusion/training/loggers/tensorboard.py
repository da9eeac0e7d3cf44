"""The TensorBoard logger of a run."""

from __future__ import annotations

from pytorch_lightning.loggers import TensorBoardLogger


def tensorboard_logger(save_dir: str) -> TensorBoardLogger:
    """Return a ``TensorBoardLogger`` that writes to the folder ``tensorboard`` of a run.

    Args:
        save_dir: The folder of the run.

    Raises:
        ValueError: If TensorBoard is not installed.
    """
    try:
        return TensorBoardLogger(save_dir, name="tensorboard", version="", default_hp_metric=False)
    except ModuleNotFoundError as error:
        raise ValueError(
            'TensorBoard is not installed: pip install "guided-diffusion-lightning[tensorboard]"'
        ) from error
