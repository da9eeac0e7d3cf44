import pytest
import torch

from guided_diffusion.data import Fake


@pytest.mark.parametrize("channels", [1, 3])
def test_sizes_numbers_and_classes_are_those_of_the_arguments(channels):
    data = Fake(16, 32, channels=channels, image_size=12, num_classes=5, num_train=100, num_test=40)
    assert (data.shape, data.num_classes) == ((channels, 12, 12), 5)
    for name, count in (("train", 68), ("val", 32), ("test", 40)):
        images, labels = data.split(name)
        assert (images.shape, images.dtype) == ((count, channels, 12, 12), torch.uint8)
        assert labels.unique().tolist() == list(range(5))


def test_images_need_not_be_square():
    data = Fake(16, 32, channels=2, image_size=[12, 20])
    assert data.shape == (2, 12, 20)
    assert data.split("test").samples.shape[1:] == data.shape


def test_training_and_test_images_differ():
    data = Fake(16, 0, num_train=64)
    assert not torch.equal(data.split("train").samples, data.split("test").samples)


def test_the_images_depend_on_the_split_seed_only():
    def images(**seeds):
        return Fake(16, 32, **seeds).split("train").samples

    assert torch.equal(images(seed=0), images(seed=1))
    assert not torch.equal(images(split_seed=0), images(split_seed=1))


@pytest.mark.parametrize("name", ["channels", "image_size", "num_classes", "num_train", "num_test"])
def test_numbers_below_one_are_rejected(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got 0"):
        Fake(16, 0, **{name: 0})
