"""Recipes: a guidance, a threshold and a sampler, which together draw samples of given classes in batches."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from guided_diffusion.denoisers import Denoiser
from guided_diffusion.guidance import ClassifierFree, Clip, Guidance, Scale, Wrapper
from guided_diffusion.recipe.starts import Run, Start
from guided_diffusion.samplers import SampleNoise, Sampler, Step
from guided_diffusion.utils.validation import check_positive


@dataclass(frozen=True)
class Recipe:
    """A way to make samples: a guidance, a threshold on the guided estimate of the clean sample, and a sampler.

    ``batch_size``, at least 1, is the number of samples that go through the network together; guidance may double it.
    """

    guidance: Guidance = field(default_factory=ClassifierFree)
    threshold: Wrapper = field(default_factory=Clip)
    sampler: Sampler = field(default_factory=Sampler)
    batch_size: int = 250

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size)

    def at(self, scale: Scale) -> Recipe:
        """Return this recipe with another guidance scale."""
        return replace(self, guidance=replace(self.guidance, scale=scale))  # type: ignore[type-var]

    def steps(
        self,
        denoiser: Denoiser,
        labels: Int[Tensor, " n"],
        shape: Sequence[int],
        indices: Sequence[int],
        seed: int = 0,
        start: Start | None = None,
    ) -> Iterator[Step]:
        """Yield the steps of one batch; arguments as for ``sample``. The noise of a sample comes from (seed, index)."""
        weight, schedule = next(denoiser.parameters()), denoiser.schedule
        draw = SampleNoise(seed, indices)
        denoise = self.threshold(self.guidance(denoiser, schedule), schedule)
        noise = draw((len(labels), *shape)).to(weight)
        run = Run(denoise, noise, self.sampler.times(schedule, self.sampler.steps))
        if start:
            run = start(run, schedule)
        return self.sampler.method(run.denoise, schedule, run.x, run.times, labels.to(weight.device), draw)

    def sample(
        self,
        denoiser: Denoiser,
        labels: Int[Tensor, " n"],
        shape: Sequence[int],
        indices: Sequence[int] | None = None,
        scales: Float[Tensor, " n"] | None = None,
        seed: int = 0,
        start: Start | None = None,
        after_step: Callable[[], None] = lambda: None,
    ) -> Float[Tensor, "n *shape"]:
        """Return samples of ``labels`` on the CPU, drawn in batches with the denoiser in eval mode.

        Args:
            labels: The class of each sample; ``ValueError`` if there is none, or one that the denoiser does not have.
            indices: The index of each sample in the run, by default 0, 1, 2, ...
            scales: The guidance scale of each sample, in place of the guidance's own.
            start: The start of the samples, a row for each; by default pure noise.
            after_step: A function that is called after each step of a batch, for a progress bar.
        """
        _check_labels(labels, getattr(denoiser, "num_classes", None))
        indices = list(range(len(labels))) if indices is None else list(indices)
        batches = []
        with torch.no_grad(), eval_mode(denoiser):
            for rows in torch.arange(len(labels)).split(self.batch_size):
                recipe = self if scales is None else self.at(scales[rows])
                begin = start[rows] if start else None
                for step in recipe.steps(denoiser, labels[rows], shape, [indices[row] for row in rows], seed, begin):
                    samples = step.x
                    after_step()
                batches.append(samples.float().cpu())
        return torch.cat(batches)

    def sweep(
        self,
        denoiser: Denoiser,
        labels: Int[Tensor, " n"],
        shape: Sequence[int],
        scales: Sequence[float],
        seed: int = 0,
    ) -> Float[Tensor, "scales n *shape"]:
        """Return samples of the same labels from the same noise at every scale; arguments as for ``sample``."""
        count = len(labels)
        indices = list(range(count)) * len(scales)
        each_scale = torch.tensor(scales, dtype=torch.float64).repeat_interleave(count)
        images = self.sample(denoiser, labels.repeat(len(scales)), shape, indices, each_scale, seed)
        return images.unflatten(0, (len(scales), count))


def _check_labels(labels: Tensor, num_classes: int | None) -> None:
    if not len(labels):
        raise ValueError("labels must hold at least one class")
    if num_classes is not None and labels.max() >= num_classes:
        raise ValueError(f"labels must be below {num_classes}, the number of classes, got {labels.max()}")


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a module and its submodules in eval mode, and each back into its own mode at the end."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
