"""Configs and trainings for notebooks, with the overrides of the command line and without its output."""

import logging
import warnings
from contextlib import redirect_stdout
from io import StringIO
from tempfile import TemporaryDirectory

from guided_diffusion.checkpoints.files import LAST
from guided_diffusion.checkpoints.loading import TrainedDiffusion, load
from guided_diffusion.cli.config import compose
from guided_diffusion.cli.experiments import drop_unused_settings
from guided_diffusion.cli.train import train as run_training
from guided_diffusion.utils.overrides import hydra_override

__all__ = ["compose", "train"]

QUIET = ("callbacks=minimal", "logger=csv", "~callbacks.progress", "+trainer.enable_progress_bar=false")


def train(*overrides: str) -> TrainedDiffusion:
    """Train as ``python -m guided_diffusion.train`` with these overrides; return the model and leave no files.

    It prints nothing and draws no samples. A config names a class of the notebook itself as ``__main__.Name``.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    with TemporaryDirectory() as folder, warnings.catch_warnings(), redirect_stdout(StringIO()):
        warnings.simplefilter("ignore")
        config = compose(*QUIET, *overrides, hydra_override("output_dir", folder))
        drop_unused_settings(config, [*QUIET, *overrides])
        run_dir = run_training(config)
        return load(run_dir / LAST, trusted=(*config.trusted, "__main__"))
