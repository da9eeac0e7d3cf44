import itertools

import torch

from guided_diffusion.utils.rng import generator_for


def draw(*key):
    return torch.rand(4, generator=generator_for("cpu", *key))


def test_the_same_key_gives_the_same_numbers_and_the_global_generator_is_untouched():
    before = torch.random.get_rng_state()
    assert torch.equal(draw(0, 1, 2), draw(0, 1, 2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_different_numbers_or_another_order_of_them_make_a_different_key():
    keys = [(0, 1, 2), (1, 1, 2), (0, 2, 2), (0, 1, 3), (2, 1, 0), (0, 1), (0, 1, 2, 5)]
    for one, other in itertools.combinations(keys, 2):
        assert not torch.equal(draw(*one), draw(*other))


def test_the_numbers_of_neighbouring_keys_are_uncorrelated():
    numbers = torch.stack([draw(0, epoch, batch) for epoch in range(20) for batch in range(20)])
    assert len(numbers.unique(dim=0)) == 400
    assert abs(numbers.mean() - 0.5) < 0.05
    assert torch.corrcoef(numbers.T).fill_diagonal_(0).abs().max() < 0.2
