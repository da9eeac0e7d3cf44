import pytest
import torch
from omegaconf import OmegaConf
from sklearn.datasets import load_digits

from guided_diffusion.cli.config import CONFIG_PATH
from guided_diffusion.data import Digits


def digits(**arguments):
    return Digits(batch_size=128, validation_size=180, **arguments)


def rows(images):
    return [bytes(image.flatten().tolist()) for image in images]


def test_the_three_splits_together_have_all_1797_images_once():
    data = digits()
    train, val, test = (data.split(name) for name in ("train", "val", "test"))
    assert [len(split.labels) for split in (train, val, test)] == [1437 - 180, 180, 360]
    for split in (train, val, test):
        assert split.samples.shape == (len(split.labels), *data.shape) == (len(split.labels), 1, 8, 8)
    pixels = torch.from_numpy(load_digits().data * (255 / 16)).round().to(torch.uint8)
    assert sorted(rows(torch.cat([train.samples, val.samples, test.samples]))) == sorted(rows(pixels))


def test_grey_values_from_0_to_16_are_mapped_to_0_to_255():
    images = digits().split("train").samples
    assert (images.dtype, images.min(), images.max()) == (torch.uint8, 0, 255)
    assert len(images.unique()) == 17


def test_every_image_keeps_its_label():
    pixels, labels = load_digits(return_X_y=True)
    labels_of = dict(zip(rows(torch.from_numpy(pixels * (255 / 16)).round().to(torch.uint8)), labels, strict=True))
    for name in ("train", "val", "test"):
        split = digits().split(name)
        assert [labels_of[row] for row in rows(split.samples)] == split.labels.tolist()


def test_the_test_split_is_stratified():
    labels = torch.from_numpy(load_digits().target)
    counts = digits().split("test").labels.bincount(minlength=10)
    assert ((counts - labels.bincount() * 360 / 1797).abs() < 1).all()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_every_class_is_in_every_split(split):
    data = digits()
    assert data.num_classes == 10
    assert data.split(split).labels.unique().tolist() == list(range(10))


def test_the_test_split_does_not_depend_on_the_seeds():
    first, second = (digits(seed=seed, split_seed=seed).split("test") for seed in (0, 1))
    assert torch.equal(first.samples, second.samples)


@pytest.mark.parametrize("name", ["digits", "mnist", "fashion_mnist"])
def test_the_configs_of_images_that_face_one_way_do_not_mirror_them(name):
    assert OmegaConf.load(f"{CONFIG_PATH}/data/{name}.yaml").flip is False
