"""Guided samples in batches: what `sample`, the callbacks and a notebook call."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from guided_diffusion.denoisers import Denoiser
from guided_diffusion.guidance import ClassifierFree, Clip, Guidance, Scale, Wrapper
from guided_diffusion.samplers import SampleNoise, Sampler, Step
from guided_diffusion.utils.validation import check_positive


@dataclass(frozen=True)
class Recipe:
    """How samples are made: a guidance, a threshold on x0 and a sampler.

    Args:
        guidance: turns the denoiser into a guided one.
        threshold: applied to the guided estimate of the clean image.
        sampler: walks from noise to image.
        batch_size: how many samples go through the network together; guidance may double it.

    Raises:
        ValueError: unless ``batch_size`` is at least 1.
    """

    guidance: Guidance = field(default_factory=ClassifierFree)
    threshold: Wrapper = field(default_factory=Clip)
    sampler: Sampler = field(default_factory=Sampler)
    batch_size: int = 250

    def __post_init__(self) -> None:
        check_positive(batch_size=self.batch_size)

    def at(self, scale: Scale) -> Recipe:
        """The same with another guidance scale."""
        return replace(self, guidance=replace(self.guidance, scale=scale))  # type: ignore[type-var]

    def steps(
        self,
        denoiser: Denoiser,
        labels: Int[Tensor, " n"],
        shape: Sequence[int],
        indices: Sequence[int],
        seed: int = 0,
    ) -> Iterator[Step]:
        """The steps of one batch. Sample i of the run has noise from (seed, i) alone."""
        device = next(denoiser.parameters()).device
        draw = SampleNoise(seed, indices)
        denoise = self.threshold(self.guidance(denoiser, denoiser.schedule), denoiser.schedule)
        noise = draw((len(labels), *shape)).to(device)
        return self.sampler(denoise, denoiser.schedule, noise, labels.to(device), draw)

    def sample(
        self,
        denoiser: Denoiser,
        labels: Int[Tensor, " n"],
        shape: Sequence[int],
        indices: Sequence[int] | None = None,
        scales: Float[Tensor, " n"] | None = None,
        seed: int = 0,
    ) -> Float[Tensor, "n *shape"]:
        """Samples for ``labels`` on the CPU, in batches; the network is in eval mode meanwhile.

        Args:
            denoiser: the trained model.
            labels: a class for each sample.
            shape: of one sample.
            indices: the number of each sample in the run, by default 0, 1, 2, ...
            scales: a guidance scale for each sample, in place of the guidance's own.
            seed: of the run.
        """
        if not len(labels):
            raise ValueError("labels must hold at least one class")
        indices = list(range(len(labels))) if indices is None else list(indices)
        batches = []
        with torch.no_grad(), eval_mode(denoiser):
            for rows in torch.arange(len(labels)).split(self.batch_size):
                recipe = self if scales is None else self.at(scales[rows])
                *_, last = recipe.steps(denoiser, labels[rows], shape, [indices[row] for row in rows], seed)
                batches.append(last.x.float().cpu())
        return torch.cat(batches)

    def sweep(
        self,
        denoiser: Denoiser,
        labels: Int[Tensor, " n"],
        shape: Sequence[int],
        scales: Sequence[float],
        seed: int = 0,
    ) -> Float[Tensor, "scales n *shape"]:
        """The same labels and the same noise under every scale, all in the same batches."""
        count = len(labels)
        images = self.sample(
            denoiser,
            labels.repeat(len(scales)),
            shape,
            indices=list(range(count)) * len(scales),
            scales=torch.tensor(scales, dtype=torch.float64).repeat_interleave(count),
            seed=seed,
        )
        return images.unflatten(0, (len(scales), count))


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """The module and all its parts in eval mode, and afterwards each as it was."""
    modes = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes.items():
            part.training = mode
