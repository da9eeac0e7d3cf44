import math

import pytest
import torch

from guided_diffusion.samplers import SampleNoise


def test_noise_depends_on_seed_and_index_only():
    batch = SampleNoise(7, [0, 1, 2, 3])
    first, second = batch((4, 3)), batch((4, 3))
    for i in range(4):
        alone = SampleNoise(7, [i])
        assert torch.equal(alone((1, 3))[0], first[i])
        assert torch.equal(alone((1, 3))[0], second[i])


def test_the_order_of_the_samples_does_not_matter():
    assert torch.equal(SampleNoise(7, [5, 2, 9])((3, 4)), SampleNoise(7, [9, 5, 2])((3, 4))[[1, 2, 0]])


def test_samples_of_one_index_share_their_noise():
    noise = SampleNoise(7, [4, 1, 4])
    for _ in range(2):
        values = noise((3, 2))
        assert torch.equal(values[0], values[2])
        assert not torch.equal(values[0], values[1])


def test_distinct_seeds_and_distinct_indices_have_distinct_noise():
    values = torch.cat([SampleNoise(seed, range(50))((50, 1)) for seed in range(20)])
    assert len(values.unique()) == 1000


def test_noise_is_standard_normal_across_samples():
    values = SampleNoise(0, range(2000))((2000, 4)).flatten()
    assert values.mean().abs() < 5 / math.sqrt(8000)
    assert values.var() == pytest.approx(1, abs=5 * math.sqrt(2 / 8000))


def test_noise_leaves_the_global_random_state_alone():
    before = torch.random.get_rng_state()
    SampleNoise(7, [0, 1])((2, 3))
    assert torch.equal(torch.random.get_rng_state(), before)
