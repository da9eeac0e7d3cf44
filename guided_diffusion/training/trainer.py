"""Several processes: strategies that Lightning makes no object of by name, and what must be right before they start.

Lightning starts the other processes of a job by the command that started the first one. In a sweep that command is
the sweep, in a worker of joblib or submitit it is the worker. Here it is made from Hydra's record of the job, and
what a job leaves behind (its port, its process group) is cleared away before the next.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import WeightAveraging
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, Strategy

from guided_diffusion.networks.layers import ResidualBlock
from guided_diffusion.training.callbacks import LastCheckpoint
from guided_diffusion.training.callbacks.base import SamplingCallback
from guided_diffusion.training.launchers import LAUNCHERS
from guided_diffusion.utils.instantiate import build

SHARDED: dict[type, tuple[type, ...]] = {
    FSDPStrategy: (WeightAveraging, SamplingCallback),
    DeepSpeedStrategy: (WeightAveraging, SamplingCallback, LastCheckpoint),  # its checkpoints are folders
}
"""Strategies that divide the weights among processes, and the callbacks that need them whole, or in one file."""


def fsdp() -> FSDPStrategy:
    """Fully sharded data parallel: each residual block is put together when it is needed, checkpoints are whole."""
    return FSDPStrategy(auto_wrap_policy={ResidualBlock}, state_dict_type="full")


def deepspeed(stage: int = 2) -> DeepSpeedStrategy:
    """DeepSpeed's ZeRO.

    Args:
        stage: 1 divides the state of the optimizer among processes, 2 the gradients as well, 3 the weights as well.

    Raises:
        ValueError: if DeepSpeed is not installed.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise ValueError('DeepSpeed is not installed: pip install "guided-diffusion-lightning[deepspeed]"')
    return DeepSpeedStrategy(stage=stage)


def build_trainer(node: DictConfig, callbacks: Sequence[Callback]) -> Trainer:
    """The trainer of a config, without loggers, which can be one of several processes and one of several jobs.

    Raises:
        ValueError: for a strategy that can't work here.
    """
    _check_torchrun()
    trainer: Trainer = build(node, callbacks=list(callbacks), logger=False)
    check_strategy(trainer.strategy, callbacks, trainer.gradient_clip_val)
    launcher = trainer.strategy.launcher
    trainer.strategy._launcher = LAUNCHERS.get(type(launcher), lambda trainer, launcher: launcher)(trainer, launcher)
    return trainer


def check_strategy(strategy: Strategy, callbacks: Sequence[Callback], gradient_clip_val: float | None) -> None:
    """Raise ``ValueError`` for callbacks or clipping that Lightning's sharded strategies would fail on, or hang in."""
    name, whole = type(strategy).__name__, SHARDED.get(type(strategy), ())
    refused = ", ".join(type(callback).__name__ for callback in callbacks if isinstance(callback, whole))
    if refused:
        raise ValueError(
            f"{name} divides the weights among processes, which {refused} can't follow: add callbacks=sharded"
        )
    if isinstance(strategy, FSDPStrategy) and gradient_clip_val:
        raise ValueError(f"{name} clips no gradients by norm: add trainer.gradient_clip_val=null")


def check_not_sharded(strategy: Strategy) -> None:
    """Raise ``ValueError`` for a strategy that divides the weights: there is nothing to gain from it in sampling."""
    name = type(strategy).__name__
    if type(strategy) in SHARDED:
        raise ValueError(f"{name} divides the weights among processes, and samples need them whole: add strategy=ddp")


def _check_torchrun() -> None:
    """Under torchrun every process finds a folder of its own, unless it is told."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or not HydraConfig.initialized():
        return
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ValueError("torchrun can't run a sweep: leave it out, strategy=ddp starts the processes of each job")
    if not any(override.startswith("hydra.run.dir=") for override in HydraConfig.get().overrides.hydra):
        raise ValueError("under torchrun all processes must know the folder: add hydra.run.dir=FOLDER, or leave it out")
