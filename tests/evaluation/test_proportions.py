import pytest
import torch

from guided_diffusion.evaluation.proportions import apportion, interleave, occurrences


@pytest.mark.parametrize(
    ("total", "sizes", "expected"),
    [
        (10, [80, 15, 5], [8, 2, 0]),  # remainders 0, 1/2, 1/2: the first of two equal ones
        (100, [41, 41, 18], [41, 41, 18]),
        (7, [1, 1, 1], [3, 2, 2]),
        (3, [1000, 1, 0], [3, 0, 0]),
        (20, [7, 7, 7, 7, 6, 6, 6, 6, 6, 6], [2] * 10),
    ],
)
def test_a_total_is_divided_in_proportion_by_largest_remainders(total, sizes, expected):
    counts = apportion(total, torch.tensor(sizes))
    assert counts.tolist() == expected
    assert counts.sum() == total


def test_labels_are_mixed_and_equal_counts_cycle():
    assert interleave(torch.tensor([2, 2, 2])).tolist() == [0, 1, 2, 0, 1, 2]
    assert interleave(torch.tensor([6, 2, 0])).tolist() == [0, 0, 1, 0, 0, 0, 1, 0]


def test_occurrences_count_the_same_labels_before():
    assert occurrences(torch.tensor([2, 0, 2, 2, 0, 1])).tolist() == [0, 0, 1, 2, 1, 0]
