"""Stop where numbers are no numbers any more."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from guided_diffusion.utils.validation import check_positive


class Observed(NamedTuple):
    """What is known of a step; the numbers stay on the device until they are looked at."""

    step: int
    batch: tuple[int, int, int, int]
    """Its key: seed, epoch, number in the epoch, rank. All that is random in the step follows from it."""
    loss: Tensor
    gradient: Tensor


class TerminateOnNonFinite(Callback):
    """Stops a training whose loss, gradients or weights are infinite or NaN, before that gets into a checkpoint.

    The loss and the norm of the gradients of every step are kept on the device and looked at every
    ``every_n_steps``, so that a GPU need not wait, and before each checkpoint, where the weights are looked at too.
    Nothing is changed.

    Args:
        every_n_steps: steps between two looks.

    Raises:
        ValueError: unless ``every_n_steps`` is at least 1; in training, for the first step that is not finite.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        check_positive(every_n_steps=every_n_steps)
        self.every_n_steps = every_n_steps
        self._gradient = torch.zeros(())
        self._observed: list[Observed] = []

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Before clipping. In 16-mixed infinite gradients belong to the search for a scale, and are skipped."""
        if trainer.precision != "16-mixed":
            gradients = [parameter.grad for parameter in pl_module.parameters() if parameter.grad is not None]
            self._gradient = torch.stack(torch._foreach_norm(gradients)).norm()

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        key = (pl_module.seed, trainer.current_epoch, batch_idx, trainer.global_rank)
        loss = outputs["loss"].detach()
        self._observed.append(Observed(trainer.global_step, key, loss, self._gradient.to(loss)))
        if len(self._observed) >= self.every_n_steps:
            self._look(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._look(trainer)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._look(trainer)
        if not all(bool(parameter.isfinite().all()) for parameter in pl_module.parameters()):
            raise ValueError(f"weights are not finite after step {trainer.global_step}: {_mend(trainer)}")

    def _look(self, trainer: Trainer) -> None:
        observed, self._observed = self._observed, []
        if not observed:
            return
        numbers = torch.stack([torch.stack([one.loss.float(), one.gradient.float()]) for one in observed]).cpu()
        for one, (loss, gradient) in zip(observed, numbers.tolist(), strict=True):
            if not torch.tensor([loss, gradient]).isfinite().all():
                what = f"loss is {loss:g}, norm of the gradients {gradient:g}"
                raise ValueError(
                    f"{what} at step {one.step}, batch (seed, epoch, batch, rank) = {one.batch}: {_mend(trainer)}"
                )


def _mend(trainer: Trainer) -> str:
    """What helps, the likeliest first, and what is left of the training."""
    precise = [] if trainer.precision == "32-true" else ["take trainer.precision=32-true"]
    clipped = "lower" if trainer.gradient_clip_val else "set"
    ways = ["lower module.optimizer.lr", *precise, f"{clipped} trainer.gradient_clip_val"]
    return f"{', or '.join(ways)}; the last checkpoint is as it was"
