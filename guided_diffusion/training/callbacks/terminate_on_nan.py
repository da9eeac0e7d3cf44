"""Stopping a training whose loss, gradients or weights are infinite or NaN."""

import math
from typing import Any, NamedTuple

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from guided_diffusion.training.steps import ends_step
from guided_diffusion.utils.validation import check_positive


class StepRecord(NamedTuple):
    """The loss of a batch and the gradient norm of the last step done; both stay on the device until checked."""

    step: int
    batch: tuple[int, int, int, int]  # seed, epoch, index, rank: everything random in the step follows from them
    loss: Tensor
    gradient_norm: Tensor


class TerminateOnNonFinite(Callback):
    """A callback that stops a training with infinite or NaN numbers before they get into a checkpoint.

    The loss and the gradient norm of every step stay on the device, so that a GPU need not wait. They are checked
    every ``every_n_steps`` and before each checkpoint, which checks the weights as well. The training is unchanged.

    Raises:
        ValueError: If ``every_n_steps`` is below 1; in training, at the first step with a number that is not finite.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        check_positive(every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self._gradient_norm = torch.zeros(())
        self._records: list[StepRecord] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Note the norm before clipping. In 16-mixed, infinite gradients are normal: the scaler skips these steps."""
        if trainer.precision != "16-mixed":
            gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
            self._gradient_norm = torch.stack(torch._foreach_norm(gradients)).norm()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        key = (pl_module.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        loss = outputs["loss"].detach()
        step = trainer.global_step if ends_step(trainer, batch_idx) else trainer.global_step + 1
        self._records.append(StepRecord(step, key, loss, self._gradient_norm.to(loss)))
        if len(self._records) >= self.every_n_steps * trainer.accumulate_grad_batches:
            self._check_records(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_records(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._check_records(trainer)
        if not all(bool(parameter.isfinite().all()) for parameter in pl_module.parameters()):
            raise ValueError(f"weights are not finite after step {trainer.global_step}: {_advice(trainer)}")

    def _check_records(self, trainer: Trainer) -> None:
        records, self._records = self._records, []
        numbers = [torch.stack([record.loss.float(), record.gradient_norm.float()]) for record in records]
        values = torch.stack(numbers).tolist() if numbers else []  # one copy from the device
        for record, (loss, norm) in zip(records, values, strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise ValueError(
                    f"loss is {loss:g}, norm of the gradients {norm:g} at step {record.step}, "
                    f"batch (seed, epoch, batch, rank) = {record.batch}: {_advice(trainer)}"
                )


def _advice(trainer: Trainer) -> str:
    """Return what may help, the likeliest remedy first, and say that the last checkpoint is not affected."""
    precision = [] if trainer.precision == "32-true" else ["use trainer.precision=32-true"]
    clipping = "lower" if trainer.gradient_clip_val else "set"
    ways = ["lower module.optimizer.lr", *precision, f"{clipping} trainer.gradient_clip_val"]
    return f"{', or '.join(ways)}; the last checkpoint is not affected"
