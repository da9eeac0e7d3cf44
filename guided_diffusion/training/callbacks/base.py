"""The base class of callbacks that sample during a training: when they sample, from which model and weights."""

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from guided_diffusion.checkpoints.loading import load
from guided_diffusion.data import LabelledDataModule
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.guidance import check_scale, needs_classifier
from guided_diffusion.recipe import Recipe, eval_mode
from guided_diffusion.training.callbacks.ema import evaluation_weights
from guided_diffusion.training.length import reached_end
from guided_diffusion.training.modules import NoisyTraining
from guided_diffusion.training.resume.preemption import exit_on_sigterm
from guided_diffusion.training.steps import ends_step
from guided_diffusion.utils.failures import keeping, reason
from guided_diffusion.utils.memory import explain_out_of_memory
from guided_diffusion.utils.validation import check_positive

log = logging.getLogger(__name__)

Sweep = Callable[[Tensor], Tensor]
"""A function ``sweep(labels)`` that returns samples under every scale, shape (scales, labels, *shape)."""


def model_to_sample(module: Any, guide: Denoiser | None, recipe: Recipe) -> tuple[Denoiser, Recipe] | None:
    """Return the denoiser and recipe to sample with; for a classifier, the guide guided by it, or None without one."""
    if module.kind == "diffusion":
        return module.denoiser, recipe
    if guide is None:
        return None
    guided = replace(recipe, guidance=recipe.guidance.with_classifier(module.classifier))
    return guide.to(next(module.parameters())), guided


@contextmanager
def _warn_of_failure(name: str, step: int) -> Iterator[None]:
    """Turn an error in the block into a warning."""
    try:
        yield
    except Exception as error:
        log.warning("%s failed at step %d, the training goes on: %s", name, step, reason(error))


class SamplingCallback(Callback, ABC):
    """A callback that samples every ``every_n_steps`` and after the training, on one process, with averaged weights.

    Sampling has random generators of its own, so it does not change the training. If it fails during the training, a
    warning is logged and the training goes on; if it fails at the end, the error says where the checkpoints are.

    Args:
        recipe: The guidance, threshold and sampler.
        scales: The guidance scales; they replace the scale of the recipe.
        every_n_steps: The number of optimizer steps between samplings; 0 samples at the end only.
        guide: The checkpoint of the diffusion model that a classifier in training guides. Without it the training of a
            classifier samples nothing.
        num_samples: The number of samples at each scale, or for each class and scale; the subclass says which.
        trusted: The user's packages that the checkpoint of the guide may name, as in ``load``.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        ValueError: If ``every_n_steps`` is negative, ``scales`` is empty, a scale is not finite, or ``num_samples`` is
            below 1; in ``setup``, if there is a guide and the guidance of the recipe takes no classifier.
    """

    def __init__(
        self,
        recipe: Recipe,
        scales: Sequence[float],
        output_dir: str,
        every_n_steps: int = 0,
        seed: int = 0,
        guide: str | None = None,
        num_samples: int = 1,
        trusted: Sequence[str] = (),
    ) -> None:
        if every_n_steps < 0:
            raise ValueError(f"every_n_steps must be at least 0, got {every_n_steps}")
        if not scales:
            raise ValueError("scales must hold at least one number")
        check_scale(torch.tensor(scales))
        check_positive(num_samples=num_samples)
        self.recipe = recipe
        self.scales = list(scales)
        self.output_dir = Path(output_dir)
        self.every_n_steps = every_n_steps
        self.seed = seed
        self.guide = load(guide, trusted=trusted).denoiser if guide else None
        self.num_samples = num_samples
        self._sampled_step = 0

    @abstractmethod
    def sample(self, trainer: Trainer, sweep: Sweep, data: LabelledDataModule) -> None:
        """Call ``sweep(labels)`` for samples of shape (scales, labels, *shape), and write the outcome."""

    def check(self, data: LabelledDataModule) -> None:
        """Raise, before the training, if something that sampling needs is not available; the default checks nothing."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Check that the guidance takes a classifier if there is a guide, and that the folder can be made."""
        if trainer.is_global_zero:
            self.output_dir.mkdir(parents=True, exist_ok=True)
        if self.guide is not None and not needs_classifier(self.recipe.guidance):
            raise ValueError("the guide is guided by the classifier in training: add guidance=classifier")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Sample if the interval is over; the last step is left to ``on_train_end``."""
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if due and ends_step(trainer, batch_idx) and trainer.global_step not in (self._sampled_step, trainer.max_steps):
            self._run(trainer, pl_module, _warn_of_failure(type(self).__name__, trainer.global_step))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sample once more if the training is complete; a signal then ends the program at once."""
        if not reached_end(trainer):
            return
        kept = f"{type(self).__name__} failed after the training, whose checkpoints are in {self.output_dir}"
        with exit_on_sigterm(trainer):
            self._run(trainer, pl_module, keeping(kept))

    def _run(self, trainer: Trainer, module: Any, on_failure: AbstractContextManager[None]) -> None:
        """Sample in the first process, for which the others wait, also if it fails."""
        self._sampled_step = trainer.global_step
        try:
            if trainer.is_global_zero:
                with on_failure, evaluation_weights(trainer, module):
                    self._sample(trainer, module)
        except Exception:
            trainer.strategy.barrier()
            raise
        trainer.strategy.barrier()

    def _sample(self, trainer: Trainer, module: NoisyTraining) -> None:
        subject = model_to_sample(module, self.guide, self.recipe)
        if subject is None:
            return
        (denoiser, recipe), data = subject, trainer.datamodule  # type: ignore[attr-defined]

        def sweep(labels: Tensor) -> Tensor:
            with trainer.precision_plugin.forward_context(), eval_mode(module):  # the precision of the training
                return recipe.sweep(denoiser, labels, data.shape, self.scales, self.seed)

        with explain_out_of_memory("recipe.batch_size"):
            self.sample(trainer, sweep, data)
