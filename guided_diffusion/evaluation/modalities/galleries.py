"""How samples are shown, by what they are: ``GALLERIES["images"]`` and ``GALLERIES["points"]``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from guided_diffusion.checkpoints.loading import TrainedDiffusion
from guided_diffusion.data import Pattern, Patterns
from guided_diffusion.evaluation.plots.image_grid import grid, save_labelled_grid
from guided_diffusion.evaluation.plots.scatter import LIMIT, NOISE_LIMIT, densities_of, point_frames, save_scatter_grid
from guided_diffusion.samplers import Step


@runtime_checkable
class Gallery(Protocol):
    """Pictures of samples of some classes."""

    num_samples: ClassVar[int]
    """Of each class, where nobody says how many."""

    def animated(self, num_classes: int) -> int:
        """How many samples of each class an animation shows at most."""

    def save(self, samples: Float[Tensor, "classes n *shape"], names: Sequence[str], path: Path) -> None:
        """A PNG of samples of these classes."""

    def frames(self, steps: Sequence[Step], names: Sequence[str]) -> Iterator[UInt8[Tensor, "height width 3"]]:
        """A frame for every step, of as many samples of each class: x_t above the estimate of x_0."""


@dataclass(frozen=True)
class ImageGallery:
    """A row for each class; in animations a column for each sample."""

    num_samples: ClassVar[int] = 8
    columns: ClassVar[int] = 10

    def animated(self, num_classes: int) -> int:
        return max(1, self.columns // num_classes)

    def save(self, samples: Float[Tensor, "classes n c h w"], names: Sequence[str], path: Path) -> None:
        save_labelled_grid(samples, path, rows=names, columns=[""] * samples.shape[1])

    def frames(self, steps: Sequence[Step], names: Sequence[str]) -> Iterator[UInt8[Tensor, "height width 3"]]:
        for step in steps:
            yield grid(torch.cat([step.x, step.x0]).cpu(), columns=len(step.x), min_size=56)


@dataclass(frozen=True)
class PointGallery:
    """A column for each class, over the density of the data.

    Args:
        patterns: all that the data have.
        class_names: of these.
    """

    patterns: Sequence[Pattern]
    class_names: Sequence[str]
    num_samples: ClassVar[int] = 1000

    def animated(self, num_classes: int) -> int:
        return 400

    def save(self, samples: Float[Tensor, "classes n 2"], names: Sequence[str], path: Path) -> None:
        densities = densities_of(self.patterns, LIMIT)
        save_scatter_grid(samples[None], densities, path, rows=[""], columns=names, own=self._own(names))

    def frames(self, steps: Sequence[Step], names: Sequence[str]) -> Iterator[UInt8[Tensor, "height width 3"]]:
        return point_frames(steps, densities_of(self.patterns, NOISE_LIMIT), self._own(names), names)

    def _own(self, names: Sequence[str]) -> list[int]:
        return [self.class_names.index(name) for name in names]


def image_gallery(model: TrainedDiffusion) -> Gallery:
    return ImageGallery()


def point_gallery(model: TrainedDiffusion) -> Gallery:
    """Over the patterns that the model was trained on."""
    data = model.data()
    assert isinstance(data, Patterns)
    return PointGallery(data.patterns, data.class_names)


GALLERIES: dict[str, Callable[[TrainedDiffusion], Gallery]] = {"images": image_gallery, "points": point_gallery}
"""By the kind of the data."""
