"""Publish an evaluation on the dashboard of any logger."""

from functools import singledispatch
from pathlib import Path

from pytorch_lightning.loggers import Logger, TensorBoardLogger, WandbLogger

from guided_diffusion.evaluation.publish.csv import publish_numbers
from guided_diffusion.evaluation.publish.tensorboard import publish_to_tensorboard
from guided_diffusion.evaluation.results import Results

__all__ = ["publish_results"]


@singledispatch
def publish_results(logger: Logger, results: Results, folder: Path) -> None:
    """Show an evaluation in a logger.

    W&B and TensorBoard get curves and pictures, any other logger gets the numbers. To show more in a logger of
    your own, register a function for its class: ``@publish_results.register(MyLogger)``. ``folder`` holds the files of
    the evaluation.
    """
    publish_numbers(logger, results)


@publish_results.register(TensorBoardLogger)
def _publish_to_tensorboard(logger: TensorBoardLogger, results: Results, folder: Path) -> None:
    publish_to_tensorboard(logger, results)


@publish_results.register(WandbLogger)
def _publish_to_wandb(logger: WandbLogger, results: Results, folder: Path) -> None:
    from guided_diffusion.evaluation.publish.wandb import publish_to_wandb  # importing wandb takes a second

    publish_to_wandb(logger, results, folder)
