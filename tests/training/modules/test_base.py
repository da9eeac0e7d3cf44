import pytest
import torch

from guided_diffusion.training.modules.base import band_name, band_of


def test_bands_are_equal_parts_of_time():
    assert band_of(torch.tensor([0.01, 0.25, 0.26, 0.5, 0.51, 0.76, 1.0]), 4).tolist() == [0, 0, 1, 1, 2, 3, 3]


@pytest.mark.parametrize(("band", "count", "name"), [(0, 4, "t_0.00_0.25"), (9, 10, "t_0.90_1.00")])
def test_the_name_of_a_band_is_its_times(band, count, name):
    assert band_name(band, count) == name
