"""Loggers for training, and what they show of it."""

from guided_diffusion.training.loggers.csv import CSVLogger
from guided_diffusion.training.loggers.tensorboard import tensorboard_logger
from guided_diffusion.training.loggers.wandb import wandb_logger

__all__ = ["CSVLogger", "tensorboard_logger", "wandb_logger"]
