"""What callbacks that sample have in common: when they do, how, and with which weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from guided_diffusion.checkpoints.loading import load
from guided_diffusion.data import LabelledDataModule
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.guidance import check_scale, needs_classifier
from guided_diffusion.recipe import Recipe, eval_mode
from guided_diffusion.training.callbacks.ema import evaluation_weights
from guided_diffusion.training.modules import NoisyTraining
from guided_diffusion.training.resume.preemption import exit_on_sigterm
from guided_diffusion.utils.memory import explain_out_of_memory

Sweep = Callable[[Tensor], Tensor]
"""``sweep(labels)``: samples under every scale, shape (scales, labels, *shape)."""


Subject = tuple[Denoiser, Recipe]
"""What is sampled from, and how."""


def denoiser_in_training(module: Any, guide: Denoiser | None, recipe: Recipe) -> Subject:
    return module.denoiser, recipe


def guide_with_classifier_in_training(module: Any, guide: Denoiser | None, recipe: Recipe) -> Subject | None:
    if guide is None:
        return None
    guidance = recipe.guidance.with_classifier(module.classifier)
    return guide.to(module.device), replace(recipe, guidance=guidance)


SUBJECTS: dict[str, Callable[[Any, Denoiser | None, Recipe], Subject | None]] = {
    "diffusion": denoiser_in_training,
    "classifier": guide_with_classifier_in_training,
}
"""By the kind of the training."""


OPTIONS = {"images": "default", "points": "patterns"}
"""The callbacks for each kind of data, as the config calls them."""


class SamplingCallback(Callback):
    """Samples every ``every_n_steps`` and when training has ended, on one process, with the averaged weights.

    Training is not affected: sampling draws from generators of its own.

    Args:
        recipe: how samples are made; its guidance's scale is replaced by each of ``scales``.
        scales: of guidance.
        output_dir: of the run.
        every_n_steps: optimizer steps between two samplings; 0 for the end alone.
        seed: of the noise.
        guide: checkpoint of the diffusion model that a classifier in training is to guide; without it there is
            nothing to sample in such a training.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if ``every_n_steps`` is negative, or there are no scales or one that is not finite.
    """

    kind: ClassVar[str]
    """What the data must be, ``images`` or ``points``."""

    def __init__(
        self,
        recipe: Recipe,
        scales: Sequence[float],
        output_dir: str,
        every_n_steps: int = 0,
        seed: int = 0,
        guide: str | None = None,
    ) -> None:
        if every_n_steps < 0:
            raise ValueError(f"every_n_steps must be at least 0, got {every_n_steps}")
        if not scales:
            raise ValueError("scales must hold at least one number")
        check_scale(torch.tensor(scales))
        self.recipe = recipe
        self.scales = list(scales)
        self.output_dir = Path(output_dir)
        self.every_n_steps = every_n_steps
        self.seed = seed
        self.guide = load(guide).denoiser if guide else None
        self._sampled_step = 0

    @abstractmethod
    def sample(self, trainer: Trainer, sweep: Sweep, data: LabelledDataModule) -> None:
        """Call ``sweep(labels)`` for samples of shape (scales, labels, ...) and write what comes of them."""

    def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        if self.guide is not None and not needs_classifier(self.recipe.guidance):
            raise ValueError("the guide is guided by the classifier in training: add guidance=classifier")
        data = trainer.datamodule  # type: ignore[attr-defined]
        if data.kind != self.kind:
            raise ValueError(
                f"{type(self).__name__} is for {self.kind}, and the data are {data.kind}: "
                f"add callbacks={OPTIONS[data.kind]}"
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self.every_n_steps and trainer.global_step % self.every_n_steps == 0
        if due and trainer.global_step not in (self._sampled_step, trainer.max_steps):
            self._run(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        with exit_on_sigterm(trainer):
            self._run(trainer, pl_module)

    def _run(self, trainer: Trainer, module: Any) -> None:
        self._sampled_step = trainer.global_step
        if trainer.is_global_zero:
            with evaluation_weights(trainer, module):
                self._sample(trainer, module)
        trainer.strategy.barrier()

    def _sample(self, trainer: Trainer, module: NoisyTraining) -> None:
        subject = SUBJECTS[module.kind](module, self.guide, self.recipe)
        if subject is None:
            return
        (denoiser, recipe), data = subject, trainer.datamodule  # type: ignore[attr-defined]

        def sweep(labels: Tensor) -> Tensor:
            """Under every scale, in the precision of the training."""
            with trainer.precision_plugin.forward_context(), eval_mode(module):
                return recipe.sweep(denoiser, labels, data.shape, self.scales, self.seed)

        with explain_out_of_memory("recipe.batch_size"):
            self.sample(trainer, sweep, data)
