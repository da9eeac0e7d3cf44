"""The loggers of a training: how they are made, what they show and how they are closed."""

from guided_diffusion.training.loggers.continuation import Continuation, begin_logging
from guided_diffusion.training.loggers.csv import CSVLogger
from guided_diffusion.training.loggers.log import closing_loggers, log_curve, log_image
from guided_diffusion.training.loggers.tensorboard import tensorboard_logger
from guided_diffusion.training.loggers.wandb import wandb_logger

__all__ = [
    "CSVLogger",
    "Continuation",
    "begin_logging",
    "closing_loggers",
    "log_curve",
    "log_image",
    "tensorboard_logger",
    "wandb_logger",
]
