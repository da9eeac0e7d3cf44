"""Train a diffusion model or a classifier to guide one: ``python -m guided_diffusion.train``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from guided_diffusion.config import chosen
from guided_diffusion.programs import program


def train(config: DictConfig, search: Sequence[Path] = (), sweep: Path | None = None) -> Path:
    """Train as ``config`` says and return the run's folder: another than ``output_dir`` where ``resume`` finds one.

    Args:
        config: of the training.
        search: folders of runs that ``resume=auto`` may go on with, beside ``output_dir``.
        sweep: the folder of the sweep that this is a job of. Its jobs share a training where they can.

    Raises:
        ValueError, FileNotFoundError: for a wrong config or missing data, before anything is written.
        SystemExit: with status 143 when told to stop by Ctrl-C, SIGTERM or SIGUSR1; a checkpoint is saved.
    """
    from guided_diffusion.tasks.train import train  # here, so that --help need not wait for it

    return train(config, search, sweep)


def run(config: DictConfig) -> None:
    hydra = HydraConfig.get()
    config.output_dir = hydra.runtime.output_dir
    said = hydra.overrides.task
    scale = config.guidance.get("scale")
    if chosen(said, "guidance.scale") and not chosen(said, "scales") and isinstance(scale, int | float):
        config.scales = [scale]
    sweep = Path(hydra.sweep.dir).absolute() if hydra.mode == RunMode.MULTIRUN else None
    train(config, _earlier_runs(Path(config.output_dir)), sweep)


def _earlier_runs(output_dir: Path) -> list[Path]:
    """Beside a time-stamped folder, and in the sweeps there; none where the command line names the folder."""
    overrides = HydraConfig.get().overrides
    if chosen(overrides.task, "output_dir") or chosen(overrides.hydra, "hydra.run.dir"):
        return []
    name = output_dir.parent.parent if HydraConfig.get().mode == RunMode.MULTIRUN else output_dir.parent
    found = [*name.glob("*/config.yaml"), *name.glob("sweep_*/*/config.yaml")]
    return [path.parent for path in found if path.parent != output_dir]


main = program(run, "train")

if __name__ == "__main__":
    sys.exit(main())
