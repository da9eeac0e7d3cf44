"""Where an optimizer step begins and ends, if it accumulates the gradients of several batches."""

from pytorch_lightning import Trainer


def begins_step(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether a batch, by its index in the epoch, is the first of an optimizer step."""
    return batch_idx % trainer.accumulate_grad_batches == 0


def ends_step(trainer: Trainer, batch_idx: int) -> bool:
    """Return whether a batch, by its index in the epoch, is the last of an optimizer step."""
    return (batch_idx + 1) % trainer.accumulate_grad_batches == 0 or bool(trainer.is_last_batch)
