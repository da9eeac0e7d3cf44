"""Points in the plane, whose classes are curves, a checkerboard or small mixtures of Gaussians.

A pattern is a set of places, thousands of them along a curve, and a point is one of the places plus noise:

    x = place_k + spread z,    k uniform,    z ~ N(0, I)

So every pattern, and every set of patterns, is a mixture of Gaussians whose density and exact denoiser are known.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor

from guided_diffusion.data.base import Batch, LabelledDataModule, Rows, Split
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.rng import generator_for
from guided_diffusion.utils.validation import check_positive

DENSE = 3000
"""The number of places along a curve: enough for gaps smaller than any useful noise."""
MARGIN = 4.0
"""The distance of a curve to the edge of [-1, 1], in standard deviations of the noise."""


def spiral(turns: float = 1.75) -> Float[Tensor, "n 2"]:
    """Return the places of an Archimedean spiral that starts near the centre."""
    angle = torch.linspace(0.15, 1, 4 * DENSE, dtype=torch.float64) * turns * 2 * math.pi
    return fit_to_square(resample(torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1), DENSE))


def s_curve() -> Float[Tensor, "n 2"]:
    """Return the places of an S made of two three-quarter circles."""
    angle = torch.linspace(-1.5, 1.5, 4 * DENSE, dtype=torch.float64) * math.pi
    return fit_to_square(resample(torch.stack([angle.sin(), angle.sign() * (angle.cos() - 1)], dim=1), DENSE))


def moons() -> Float[Tensor, "n 2"]:
    """Return the places of two half circles, each with one end inside the other."""
    angle = torch.linspace(0, math.pi, DENSE // 2, dtype=torch.float64)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    return fit_to_square(torch.cat([upper, torch.tensor([1.0, 0.5]) - upper]))


def checkerboard(cells: int = 4, per_side: int = 24) -> Float[Tensor, "n 2"]:
    """Return the places of a board's dark cells: a grid of ``per_side`` by ``per_side`` in each cell."""
    inside = (torch.arange(per_side, dtype=torch.float64) + 0.5) / per_side
    cell = torch.cartesian_prod(inside, inside)
    corners = torch.cartesian_prod(torch.arange(cells), torch.arange(cells))
    dark = corners[corners.sum(1) % 2 == 0]
    return fit_to_square((dark[:, None] + cell).flatten(0, 1))


def opposite_pair(degrees: float) -> Float[Tensor, "2 2"]:
    """Return two opposite places, half way between the centre and the edge."""
    angle = torch.tensor([degrees, degrees + 180], dtype=torch.float64).deg2rad()
    return torch.stack([angle.cos(), angle.sin()], dim=1) / 2


def resample(path: Float[Tensor, "m 2"], count: int) -> Float[Tensor, "{count} 2"]:
    """Return ``count`` places at equal distances along a path."""
    length = torch.cat([path.new_zeros(1), path.diff(dim=0).norm(dim=1).cumsum(0)])
    wanted = torch.linspace(0, 1, count, dtype=path.dtype) * length[-1]
    after = torch.searchsorted(length, wanted).clamp(1, len(length) - 1)
    share = (wanted - length[after - 1]) / (length[after] - length[after - 1])
    return torch.lerp(path[after - 1], path[after], share[:, None])


def fit_to_square(places: Float[Tensor, "n 2"]) -> Float[Tensor, "n 2"]:
    """Shift the places, and scale them by one factor in both directions, so that they reach from -1 to 1."""
    low, high = places.amin(0), places.amax(0)
    return (places - (low + high) / 2) / (high - low).amax() * 2


@dataclass(frozen=True)
class Pattern:
    """Equally likely places, dense along a curve or the means of a mixture, and the noise around them.

    ``spread`` is the standard deviation of points from their place, in each direction.
    """

    places: Float[Tensor, "k 2"]
    spread: float

    @classmethod
    def named(cls, name: str, noise: float) -> "Pattern":
        """Return a pattern of ``PATTERNS``, scaled so that noise of this standard deviation stays in [-1, 1].

        Raises:
            ValueError: If the name is unknown or the noise is outside [0, 0.1].
        """
        if name not in PATTERNS:
            raise ValueError(f"patterns must be among {', '.join(PATTERNS)}, got {name}")
        if not 0 <= noise <= 0.1:
            raise ValueError(f"noise must be in [0, 0.1], got {noise}")
        places, own_spread = PATTERNS[name]
        return cls(places() * (1 - MARGIN * noise), math.hypot(noise, own_spread))

    def generate(self, count: int, generator: torch.Generator) -> Float[Tensor, "{count} 2"]:
        """Draw float32 points in [-1, 1]; the few that noise carries beyond the edge are clamped to it."""
        place = torch.randint(len(self.places), (count,), generator=generator)
        noise = torch.randn(count, 2, generator=generator, dtype=torch.float64)
        return (self.places[place] + self.spread * noise).clamp(-1, 1).float()

    def distance(self, points: Float[Tensor, "n 2"]) -> Float[Tensor, " n"]:
        """Return the distance of each point to the nearest place."""
        parts = points.double().split(2000)
        return torch.cat([torch.cdist(part, self.places).amin(1) for part in parts])

    def mass(self, edges: Float[Tensor, " e"]) -> Float[Tensor, "rows columns"]:
        """Return the exact probability of every cell of a grid with these edges in both directions; rows are y."""
        below = torch.special.ndtr((edges[:, None, None] - self.places) / max(self.spread, 1e-9))
        x, y = below.diff(dim=0).unbind(-1)
        return y @ x.T / len(self.places)


PATTERNS: Mapping[str, tuple[Callable[[], Tensor], float]] = MappingProxyType(
    {"spiral": (spiral, 0.0), "s_curve": (s_curve, 0.0), "moons": (moons, 0.0), "checkerboard": (checkerboard, 0.0)}
    | {f"mixture_{end}": (partial(opposite_pair, degrees), 0.12) for end, degrees in (("a", 0), ("b", 60), ("c", 120))}
)
"""The function that returns a pattern's places in [-1, 1], and a spread that is added to the noise.

The three mixtures are six Gaussians on a circle, two of each class; neighbours are of different classes and overlap.
"""


class Patterns(LabelledDataModule):
    """Points of patterns in the plane, in [-1, 1], equally many of each; labels are positions in ``patterns``.

    Other arguments are those of ``LabelledDataModule``; ``split_seed`` is also the seed of the points.

    Args:
        patterns: Names in ``PATTERNS``.
        num_train: The number of training points of each pattern, including those held out for validation.
        noise: The standard deviation of the points from their place, in each direction.

    Raises:
        ValueError: If there is no name, a name is unknown or repeated, noise is outside [0, 0.1] or a number below 1.
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
        balance: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, validation_size, seed, split_seed, balance, num_workers)
        if not patterns or len(set(patterns)) < len(patterns):
            raise ValueError(f"patterns must be different names, at least one, got {list(patterns)}")
        check_positive(num_train=num_train, num_test=num_test)
        self.patterns = tuple(Pattern.named(name, noise) for name in patterns)
        self.class_names = tuple(patterns)
        self.num_train, self.num_test = num_train, num_test

    @property
    def shape(self) -> tuple[int]:
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
        """Return the exact denoiser and classifier of these patterns: a mixture with a Gaussian at every place."""
        sizes = torch.tensor([len(one.places) for one in self.patterns])
        labels = torch.arange(self.num_classes).repeat_interleave(sizes)
        spreads = torch.tensor([one.spread for one in self.patterns])[labels].double()
        covariances = spreads[:, None, None] ** 2 * torch.eye(2, dtype=torch.float64)
        places = torch.cat([one.places for one in self.patterns])
        return GaussianMixture(schedule, places, covariances, 1 / sizes[labels].double(), labels)
