"""Patterns in the plane: a class is a curve, a checkerboard or a few Gaussians, and everything about it is exact.

A pattern is a set of places, thousands of them along a curve, and a point is one of these places and noise:

    x = place_k + spread z,    k uniform,    z ~ N(0, I)

So every pattern, and every set of patterns as well, is a mixture of Gaussians whose density, distances and exact
denoiser are known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.data.base import Batch, LabelledDataModule, Rows, Split
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.rng import generator_for
from guided_diffusion.utils.validation import check_positive

DENSE = 3000
"""Places along a curve: closer to each other than any noise worth looking at."""
MARGIN = 4.0
"""Deviations of noise between a curve and the edge of [-1, 1]."""


def spiral(turns: float = 1.75) -> Float[Tensor, "n 2"]:
    """An Archimedean spiral that starts near the centre."""
    angle = torch.linspace(0.15, 1, 4 * DENSE, dtype=torch.float64) * turns * 2 * math.pi
    return filling(along(torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1), DENSE))


def s_curve() -> Float[Tensor, "n 2"]:
    """Two three-quarter circles that make an S."""
    angle = torch.linspace(-1.5, 1.5, 4 * DENSE, dtype=torch.float64) * math.pi
    return filling(along(torch.stack([angle.sin(), angle.sign() * (angle.cos() - 1)], dim=1), DENSE))


def moons() -> Float[Tensor, "n 2"]:
    """Two half circles, each with one end inside the other."""
    angle = torch.linspace(0, math.pi, DENSE // 2, dtype=torch.float64)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    return filling(torch.cat([upper, torch.tensor([1.0, 0.5]) - upper]))


def checkerboard(cells: int = 4, per_side: int = 24) -> Float[Tensor, "n 2"]:
    """The dark cells of a board, each filled with places."""
    inside = (torch.arange(per_side, dtype=torch.float64) + 0.5) / per_side
    cell = torch.cartesian_prod(inside, inside)
    corners = torch.cartesian_prod(torch.arange(cells), torch.arange(cells))
    dark = corners[corners.sum(1) % 2 == 0]
    return filling((dark[:, None] + cell).flatten(0, 1))


def opposite(degrees: float) -> Float[Tensor, "2 2"]:
    """Two opposite places half way between the centre and the edge."""
    angle = torch.tensor([degrees, degrees + 180], dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1) / 2


def along(path: Float[Tensor, "m 2"], count: int) -> Float[Tensor, "{count} 2"]:
    """Places on a path at equal distances along it."""
    length = torch.cat([path.new_zeros(1), path.diff(dim=0).norm(dim=1).cumsum(0)])
    wanted = torch.linspace(0, 1, count, dtype=path.dtype) * length[-1]
    after = torch.searchsorted(length, wanted).clamp(1, len(length) - 1)
    share = (wanted - length[after - 1]) / (length[after] - length[after - 1])
    return torch.lerp(path[after - 1], path[after], share[:, None])


def filling(places: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """The places, moved and enlarged alike in both directions, so that they reach from -1 to 1."""
    low, high = places.amin(0), places.amax(0)
    return (places - (low + high) / 2) / (high - low).amax() * 2


@dataclass(frozen=True)
class Pattern:
    """Places in the plane, equally likely, and the deviation of the noise around them.

    Args:
        places: without noise, shape (k, 2); the dense points of a curve, or the means of a mixture.
        spread: the deviation of points from their place, in each direction.
    """

    places: Float[Tensor, "k 2"]
    spread: float

    @classmethod
    def named(cls, name: str, noise: float) -> Pattern:
        """A pattern of ``PATTERNS``.

        Raises:
            ValueError: for an unknown name, or noise that is negative or leaves no room for the pattern.
        """
        if name not in PATTERNS:
            raise ValueError(f"patterns must be among {', '.join(PATTERNS)}, got {name}")
        if not 0 <= noise <= 0.1:
            raise ValueError(f"noise must be in [0, 0.1], got {noise}")
        places, own_spread = PATTERNS[name]
        return cls(places * (1 - MARGIN * noise), math.hypot(noise, own_spread))

    def generate(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} 2"]:
        """Points in [-1, 1], float32; what noise carries further, which is rare, is put back to the edge."""
        place = torch.randint(len(self.places), (count,), generator=generator)
        noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        return (self.places[place] + self.spread * noise).clamp(-1, 1).float()

    def distance(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """From each point to the nearest of the places: how far it is from the curve."""
        parts = points.double().split(2000)
        return torch.cat([torch.cdist(part, self.places).amin(1) for part in parts])

    def mass(self, edges: Float[Tensor, " e"]) -> Float[Tensor, "rows columns"]:
        """The exact probability of every cell of a grid with these edges in both directions, y in rows."""
        below = torch.special.ndtr((edges[:, None, None] - self.places) / max(self.spread, 1e-9))
        x, y = below.diff(dim=0).unbind(-1)
        return y @ x.T / len(self.places)


PATTERNS: dict[str, tuple[Tensor, float]] = {
    "spiral": (spiral(), 0.0),
    "s_curve": (s_curve(), 0.0),
    "moons": (moons(), 0.0),
    "checkerboard": (checkerboard(), 0.0),
    "mixture_a": (opposite(0), 0.12),
    "mixture_b": (opposite(60), 0.12),
    "mixture_c": (opposite(120), 0.12),
}
"""The places of each pattern within [-1, 1], and a deviation that it has whatever the noise.

The three mixtures are six Gaussians on a circle, two of each class: neighbours are of other classes and overlap.
"""


class Patterns(LabelledDataModule):
    """Points of patterns in the plane, in [-1, 1], as many of each; the label is the position in ``patterns``.

    Args:
        patterns: names in ``PATTERNS``.
        num_train: points of each pattern, those held out for validation included.
        num_test: points of each pattern for testing.
        noise: deviation of the points from their curve, in each direction.
        batch_size: points per step and device.
        validation_size: how many training points are held out.
        seed: of the order.
        split_seed: of the points and of the choice of the held-out ones.

    Raises:
        ValueError: for a name that is unknown or comes twice, no name, noise outside [0, 0.1] or fewer than one point.
    """

    name = "patterns"

    def __init__(
        self,
        patterns: Sequence[str],
        num_train: int,
        num_test: int,
        noise: float,
        batch_size: int,
        validation_size: int,
        seed: int = 0,
        split_seed: int = 0,
    ) -> None:
        super().__init__(batch_size, validation_size, seed, split_seed)
        if not patterns or len(set(patterns)) < len(patterns):
            raise ValueError(f"patterns must be different names, at least one, got {list(patterns)}")
        check_positive(num_train=num_train, num_test=num_test)
        self.patterns = tuple(Pattern.named(name, noise) for name in patterns)
        self.class_names = tuple(patterns)
        self.num_train = num_train
        self.num_test = num_test

    @property
    def shape(self) -> tuple[int]:
        """Of one point."""
        return (2,)

    def load(self, train: bool) -> Batch:
        count = self.num_train if train else self.num_test
        points = [
            pattern.generate(count, generator_for("cpu", self.split_seed, label, 1 + train))
            for label, pattern in enumerate(self.patterns)
        ]
        return Batch(torch.cat(points), torch.arange(self.num_classes).repeat_interleave(count))

    def dataset(self, split: Split) -> Rows:
        return Rows(*self.split(split))

    def oracle(self, schedule: Schedule) -> GaussianMixture:
        """The exact denoiser and classifier of these patterns, as a mixture with a Gaussian at every place."""
        labels = torch.cat([torch.full((len(one.places),), label) for label, one in enumerate(self.patterns)])
        sizes = torch.cat([torch.full((len(one.places),), len(one.places)) for one in self.patterns])
        spreads = torch.cat([torch.full((len(one.places),), one.spread) for one in self.patterns]).double()
        covariances = spreads[:, None, None] ** 2 * torch.eye(2, dtype=torch.float64)
        return GaussianMixture(
            schedule, torch.cat([one.places for one in self.patterns]), covariances, 1 / sizes.double(), labels
        )
