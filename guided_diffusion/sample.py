"""Sample from a trained diffusion model: ``python -m guided_diffusion.sample checkpoint=PATH labels=[3,7]``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from guided_diffusion.programs import program


def sample(config: DictConfig, overrides: Sequence[str] = ()) -> Path:
    """Write samples and return their folder: ``guided_diffusion.tasks.sample`` says which.

    Raises:
        ValueError, FileNotFoundError: for a wrong config or checkpoint, before anything is written.
    """
    from guided_diffusion.tasks.sample import sample  # here, so that --help need not wait for it

    return sample(config, overrides)


def run(config: DictConfig) -> None:
    from guided_diffusion.strategies import say

    config.output_dir = HydraConfig.get().runtime.output_dir
    output_dir = sample(config, HydraConfig.get().overrides.task)
    say(f"Samples are in {output_dir}")


main = program(run, "sample")

if __name__ == "__main__":
    sys.exit(main())
