"""``Plan``: which samples an evaluation draws, at which scales, from which noise."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from guided_diffusion.checkpoints.guidance_config import classifier_checkpoint, weak_checkpoint
from guided_diffusion.evaluation.proportions import EQUAL, PROPORTIONAL, apportion, interleave
from guided_diffusion.utils.files import content_hash
from guided_diffusion.utils.validation import check_positive

MIN_OF_CLASS = 50
"""The least number of samples of a class, unless ``num_samples`` is lower."""


class LabelledSamples(NamedTuple):
    """Generated samples of one guidance scale, on the CPU."""

    samples: Float[Tensor, "n *shape"]
    """The samples, in [-1, 1]."""
    labels: Int[Tensor, " n"]
    """The class that was asked for in each sample."""
    saturation: Float[Tensor, " n"]
    """The share of each sample's values with |x| > 1 before clamping."""
    num_extra: int = 0
    """The number of samples at the end that count for the measures of their own class only."""
    guidance: Float[Tensor, "n 2"] | None = None
    """The effective scale of each sample and its residual, where they were measured."""

    @property
    def counted(self) -> "LabelledSamples":
        """The samples without the extra ones."""
        rows = slice(len(self.labels) - self.num_extra)
        guidance = None if self.guidance is None else self.guidance[rows]
        return LabelledSamples(self.samples[rows], self.labels[rows], self.saturation[rows], 0, guidance)


@dataclass(frozen=True)
class Plan:
    """The samples to draw: all scales in one list, scale after scale, cut into chunks.

    Args:
        num_samples: The number of samples of each class at every scale, on average over the classes.
        seed: The seed of the noise; sample i has the same noise at every scale.
        classes: The classes to draw, one after the other; by default the labels are mixed.
        class_sizes: The number of real samples of each class, whose proportions the labels get; by default they cycle
            through the classes. A class with fewer than ``min(num_samples, 50)`` samples is filled up to that number
            with extra samples, which follow all others and count for the measures of their own class only.

    Raises:
        ValueError: If scales are missing or repeated, or ``num_samples`` is below 1.
    """

    scales: Sequence[float]
    num_samples: int
    num_classes: int
    shape: tuple[int, ...]
    batch_size: int
    seed: int = 0
    classes: Sequence[int] | None = None
    class_sizes: Sequence[int] | None = None

    def __post_init__(self) -> None:
        if not self.scales:
            raise ValueError("scales must hold at least one number")
        if len(set(self.scales)) < len(self.scales):
            raise ValueError(f"scales must differ, got {list(self.scales)}")
        check_positive(num_samples=self.num_samples)

    @property
    def per_scale(self) -> int:
        """The number of samples at one scale, with the extra ones."""
        return self.num_counted + self.num_extra

    @property
    def num_counted(self) -> int:
        """The number of samples at one scale without the extra ones."""
        return self.num_samples * self.num_classes

    @cached_property
    def num_extra(self) -> int:
        """The number of extra samples at one scale."""
        return int(self._extra(self._counts).sum())

    @property
    def drawn(self) -> str:
        """The way the labels are drawn: ``proportional`` or ``equal``."""
        return EQUAL if self.class_sizes is None else PROPORTIONAL

    @property
    def labels(self) -> Int[Tensor, " n"]:
        """The labels of the samples of one scale."""
        if self.classes is not None:
            return torch.tensor(self.classes).repeat_interleave(self.num_samples)
        counts = self._counts
        return torch.cat([interleave(counts), interleave(self._extra(counts))])

    @property
    def _counts(self) -> Int[Tensor, " classes"]:
        sizes = [1] * self.num_classes if self.class_sizes is None else list(self.class_sizes)
        return apportion(self.num_counted, torch.tensor(sizes))

    def _extra(self, counts: Int[Tensor, " classes"]) -> Int[Tensor, " classes"]:
        return (min(self.num_samples, MIN_OF_CLASS) - counts).clamp(min=0)

    def __len__(self) -> int:
        """Return the number of chunks."""
        return math.ceil(self._total / self.batch_size)

    def rows(self, chunk: int) -> Int[Tensor, " rows"]:
        """Return the places of a chunk's samples in the list of all samples."""
        return torch.arange(chunk * self.batch_size, min((chunk + 1) * self.batch_size, self._total))

    @property
    def _total(self) -> int:
        return self.per_scale * len(self.scales)

    def plain(self) -> dict[str, Any]:
        """Return the plan as plain data for JSON."""
        scales, classes = [float(scale) for scale in self.scales], self.classes and list(self.classes)
        sizes = self.class_sizes and list(self.class_sizes)
        return asdict(self) | {"scales": scales, "shape": list(self.shape), "classes": classes, "class_sizes": sizes}

    def scales_of(self, rows: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        return torch.tensor(self.scales, dtype=torch.float64)[rows // self.per_scale]


def sampling_fingerprint(config: DictConfig, plan: Plan, *start: Any) -> str:
    """Return a hash of everything that decides the samples; ``start`` holds the settings and files of their start."""
    parts = {name: OmegaConf.to_container(config[name], resolve=True) for name in ("guidance", "threshold", "sampler")}
    models = classifier_checkpoint(config.guidance), weak_checkpoint(config.guidance)
    files = [Path(path) for path in (config.checkpoint, *models) if path]
    return content_hash(plan.plain(), parts, config.weights, config.trainer.precision, *files, *start)
