"""The noise of each sample, which depends on a seed and the index of the sample only."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from guided_diffusion.schedules import Samples

Draw = Callable[[torch.Size], Tensor]
"""``draw(shape)`` returns new standard normal noise, for samplers that add noise in a step."""


class SampleNoise:
    """Standard normal noise for a batch, drawn for each sample from a generator of its own, seeded by (seed, index).

    It is drawn on the CPU, so the noise of a sample depends neither on its batch nor on the device. Samples with the
    same index get the same noise, which is how a sweep over scales shares it.
    """

    def __init__(self, seed: int, indices: Sequence[int]) -> None:
        self._seed, self._indices = seed, indices
        order = {index: row for row, index in enumerate(dict.fromkeys(indices))}
        self._generators = [torch.Generator().manual_seed(_generator_seed(seed, index)) for index in order]
        self._rows = torch.tensor([order[index] for index in indices])

    def __call__(self, shape: Sequence[int]) -> Samples:
        """Return the next noise of each sample; ``shape`` is that of the batch."""
        draws = (torch.randn(tuple(shape[1:]), generator=one, dtype=torch.float32) for one in self._generators)
        unique = torch.stack(list(draws))
        return unique[self._rows]

    def named(self, name: str) -> SampleNoise:
        """Return other noise for the same samples, which depends on ``name`` as well."""
        return SampleNoise(zlib.crc32(f"{self._seed} {name}".encode()), self._indices)


def _generator_seed(seed: int, index: int) -> int:
    """Return a 32-bit seed, as the CPU generator keeps no more; unlike hashes, those of two indices never collide."""
    base = torch.randint(2**32, (), generator=torch.Generator().manual_seed(seed)).item()
    return int(base + index) % 2**32
