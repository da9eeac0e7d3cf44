"""The TensorBoard logger of a run."""

from pytorch_lightning.loggers import TensorBoardLogger


def tensorboard_logger(save_dir: str) -> TensorBoardLogger:
    """Return a ``TensorBoardLogger`` that writes to ``save_dir/tensorboard``; ``ValueError`` if it is not installed."""
    try:
        return TensorBoardLogger(save_dir, name="tensorboard", version="", default_hp_metric=False)
    except ModuleNotFoundError as error:
        command = 'pip install "guided-diffusion-lightning[tensorboard]"'
        raise ValueError(f"TensorBoard is not installed: {command}") from error
