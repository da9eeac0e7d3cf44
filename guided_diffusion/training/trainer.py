"""Lightning's trainer for a config: strategies for several processes, and the checks that they need beforehand."""

import importlib.util
import os
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from pytorch_lightning import Callback, Trainer
from pytorch_lightning.callbacks import GradientAccumulationScheduler, WeightAveraging
from pytorch_lightning.strategies import DeepSpeedStrategy, FSDPStrategy, Strategy
from torch.optim import Optimizer

from guided_diffusion.networks.fast_unet import FastBlock
from guided_diffusion.networks.layers import ResidualBlock
from guided_diffusion.training.callbacks import LastCheckpoint
from guided_diffusion.training.callbacks.base import SamplingCallback
from guided_diffusion.training.optimizers import MuonWithAdamW
from guided_diffusion.utils.instantiate import build
from guided_diffusion.utils.precision import check_precision

NEED_WHOLE_WEIGHTS: dict[type, tuple[type, ...]] = {
    FSDPStrategy: (WeightAveraging, SamplingCallback),
    DeepSpeedStrategy: (WeightAveraging, SamplingCallback, LastCheckpoint),  # its checkpoints are folders
}
"""The strategies that shard the weights, and the callbacks that need the weights whole or in one file."""

ALLOWED_PROCESSES = 4
"""The number of processes that are allowed even on a machine with fewer CPUs."""


def fsdp() -> FSDPStrategy:
    """Return a fully sharded strategy (FSDP) that gathers one residual block at a time and saves whole checkpoints."""
    return FSDPStrategy(auto_wrap_policy={ResidualBlock, FastBlock}, state_dict_type="full")


def deepspeed(stage: int = 2) -> DeepSpeedStrategy:
    """Return DeepSpeed's ZeRO strategy, or raise ``ValueError`` if DeepSpeed is not installed.

    Stage 1 shards the optimizer's state, stage 2 the gradients as well, stage 3 the weights as well.
    """
    if importlib.util.find_spec("deepspeed") is None:
        raise ValueError('DeepSpeed is not installed: pip install "guided-diffusion-lightning[deepspeed]"')
    return DeepSpeedStrategy(stage=stage)


def build_trainer(node: DictConfig, callbacks: Sequence[Callback]) -> Trainer:
    """Build the trainer of a config, without loggers. Its processes belong to one job, even in a sweep.

    Raises:
        ValueError: If the strategy can't work here or with these callbacks, or a callback changes the number of batches
            of a step.
        RuntimeError: If several processes are wanted and this version of Lightning has other launchers.
    """
    _check_torchrun()
    if any(isinstance(callback, GradientAccumulationScheduler) for callback in callbacks):
        raise ValueError("GradientAccumulationScheduler can't be resumed exactly: use trainer.accumulate_grad_batches")
    check_precision(node.get("precision"))
    trainer: Trainer = build(node, callbacks=list(callbacks), logger=False)
    _check_num_processes(trainer)
    check_strategy(trainer.strategy, callbacks, trainer.gradient_clip_val)
    if trainer.strategy.launcher is not None:
        from guided_diffusion.training.launchers import replace_launcher

        replace_launcher(trainer)
    return trainer


def check_strategy(strategy: Strategy, callbacks: Sequence[Callback], gradient_clip_val: float | None) -> None:
    """Raise ``ValueError`` for callbacks or clipping with which a sharded strategy would fail or hang."""
    name, unsuited = type(strategy).__name__, NEED_WHOLE_WEIGHTS.get(type(strategy), ())
    refused = ", ".join(type(callback).__name__ for callback in callbacks if isinstance(callback, unsuited))
    if refused:
        raise ValueError(f"{name} shards the weights, and {refused} need them whole: add callbacks=sharded")
    if type(strategy) is FSDPStrategy and gradient_clip_val:
        raise ValueError(f"{name} can't clip gradients by norm: add trainer.gradient_clip_val=null")


def check_optimizer(strategy: Strategy, optimizer: Optimizer) -> None:
    """Raise ``ValueError`` for an optimizer of whole matrices with a strategy that shards the weights."""
    if type(strategy) in NEED_WHOLE_WEIGHTS and isinstance(optimizer, MuonWithAdamW):
        name = type(strategy).__name__
        raise ValueError(f"{name} shards the weights, and Muon needs whole matrices: add module/optimizer=adamw")


def check_not_sharded(strategy: Strategy) -> None:
    """Raise ``ValueError`` for a strategy that shards the weights, which sampling needs whole."""
    if type(strategy) in NEED_WHOLE_WEIGHTS:
        name = type(strategy).__name__
        raise ValueError(f"{name} shards the weights, and sampling needs them whole: add strategy=ddp")


def _check_num_processes(trainer: Trainer) -> None:
    """Raise ``ValueError`` if the processes would run on the CPUs of this machine and are too many for them."""
    cpus = os.cpu_count() or 1
    if trainer.strategy.root_device.type == "cpu" and trainer.num_devices > max(cpus, ALLOWED_PROCESSES):
        raise ValueError(f"trainer.devices={trainer.num_devices} starts as many processes on {cpus} CPUs: lower it")


def _check_torchrun() -> None:
    """Raise ``ValueError`` where the processes that torchrun has started would not agree on a folder."""
    if "TORCHELASTIC_RUN_ID" not in os.environ or not HydraConfig.initialized():
        return
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        raise ValueError("torchrun can't run a sweep: leave it out, strategy=ddp starts the processes of each job")
    if not any(override.startswith("hydra.run.dir=") for override in HydraConfig.get().overrides.hydra):
        raise ValueError(
            "torchrun needs a folder that all processes know: add hydra.run.dir=FOLDER, or leave torchrun out"
        )
