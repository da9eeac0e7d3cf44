"""Train a diffusion model or a classifier to guide one: ``python -m guided_diffusion.train``."""

from __future__ import annotations

import sys
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from guided_diffusion.programs import program


def train(config: DictConfig) -> Path:
    """Train as ``config`` says and return the run's folder.

    Raises:
        ValueError, FileNotFoundError: for a wrong config or missing data, before anything is written.
    """
    from guided_diffusion.tasks.train import train  # here, so that --help need not wait for it

    return train(config)


def run(config: DictConfig) -> None:
    config.output_dir = HydraConfig.get().runtime.output_dir
    train(config)


main = program(run, "train")

if __name__ == "__main__":
    sys.exit(main())
