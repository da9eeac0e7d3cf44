"""Measure what guidance does to a trained model: ``python -m guided_diffusion.evaluate checkpoint=PATH``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from guided_diffusion.programs import program


def evaluate(config: DictConfig, overrides: Sequence[str] = ()) -> Path:
    """Sample at every scale, measure and return the folder: ``guided_diffusion.tasks.evaluate`` says what is in it.

    Raises:
        ValueError, FileNotFoundError: for a wrong config, checkpoint or data, before anything is sampled.
    """
    from guided_diffusion.tasks.evaluate import evaluate  # here, so that --help need not wait for it

    return evaluate(config, overrides)


def run(config: DictConfig) -> None:
    from guided_diffusion.strategies import say

    config.output_dir = HydraConfig.get().runtime.output_dir
    output_dir = evaluate(config, HydraConfig.get().overrides.task)
    say(f"\nThe evaluation is in {output_dir}: open report.html")


main = program(run, "evaluate")

if __name__ == "__main__":
    sys.exit(main())
