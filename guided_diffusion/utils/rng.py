"""Random generators seeded by a tuple of numbers, so that no random state has to be saved."""

import numpy as np
import torch


def generator_for(device: torch.device | str, *key: int) -> torch.Generator:
    """Return a generator on ``device`` that depends only on ``key``, for instance (seed, epoch, batch, rank).

    Keys that differ only by zeros at their end are the same key.
    """
    return torch.Generator(device).manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint32)[0]))
