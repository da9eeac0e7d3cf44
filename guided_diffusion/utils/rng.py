"""Generators made of numbers, so that no random state has to be carried."""

from __future__ import annotations

import numpy as np
import torch


def generator_for(device: torch.device | str, *key: int) -> torch.Generator:
    """A generator on ``device`` that depends on ``key`` alone, for instance (seed, epoch, batch, rank).

    Keys that differ by zeros at their end are the same key.
    """
    return torch.Generator(device).manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint32)[0]))
