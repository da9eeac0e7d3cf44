import pytest
import torch

from guided_diffusion.data import Batch, ImageDataModule, LabelledDataModule
from guided_diffusion.data.base import Rows


class Given(ImageDataModule):
    """Images that a user's dataset returns, declared as three classes of one channel and 4x6 pixels."""

    name = "given"
    channels = 1
    image_size = (4, 6)
    class_names = ("a", "b", "c")

    def __init__(self, images, labels, **arguments):
        super().__init__(**{"batch_size": 2, "validation_size": 2} | arguments)
        self.content = images, labels

    def load(self, train):
        return self.content


class GivenPoints(LabelledDataModule):
    """Points of three classes that a user's dataset returns."""

    name = "given"
    shape = (2,)
    class_names = ("a", "b", "c")

    def __init__(self, points, labels):
        super().__init__(batch_size=2, validation_size=2)
        self.content = Batch(points, labels)

    def load(self, train):
        return self.content

    def dataset(self, split):
        return Rows(*self.split(split))


def images(*shape):
    return torch.randint(256, shape or (12, 1, 4, 6), dtype=torch.uint8)


def labels(count=12):
    return torch.arange(count) % 3


POINTS = torch.linspace(-1, 1, 24).reshape(12, 2)


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize(
    ("samples", "targets", "message"),
    [
        (images() / 255, labels(), r"images are float32 from \S+ to \S+, but must be uint8 .*multiply them by 255"),
        (images() / 127.5 - 1, labels(), "images are float32 .*add 1, multiply by 127.5"),
        (images().double(), labels(), "images are float64 .*: round them and convert them to uint8"),
        (torch.arange(288).reshape(12, 1, 4, 6).to(torch.uint16), labels(), "images are uint16 .*divide them by 257"),
        (torch.full((12, 1, 4, 6), torch.nan), labels(), "images are float32 from nan"),
        (images(12, 1, 4, 8), labels(), r"shape \(1, 4, 8\), but \(1, 4, 6\) is declared: crop or resize them"),
        (images(12, 1, 9, 9), labels(), r"shape \(1, 9, 9\), but \(1, 4, 6\) is declared: crop or resize them"),
        (images(12, 4, 6, 1), labels(), r"shape \(4, 6, 1\), but \(1, 4, 6\) .*permute\(0, 3, 1, 2\)"),
        (images(12, 4, 6), labels(), r"shape \(4, 6\), but \(1, 4, 6\) .*images\[:, None\]"),
        (images(12, 3, 4, 6), labels(), r"shape \(3, 4, 6\), but \(1, 4, 6\) is declared"),
        (images(), labels(11), "12 images but 11 labels"),
        (images(), labels(13), "12 images but 13 labels"),
        (images(), labels() + 1, "labels run from 1 to 3, but 3 classes have the labels 0 to 2: subtract 1"),
        (images(), labels() - 1, "labels run from -1 to 1.*without a label can't be used: remove them"),
        (images(), labels() * 2, "labels run from 0 to 4.*name every class in class_names"),
        (images(), labels().float(), "labels are float32, but must be whole numbers: convert them to integers"),
        (images(), labels() > 0, "labels are bool, but must be whole numbers"),
        (images(), torch.eye(3)[labels()], r"labels have the shape \(12, 3\).*labels.argmax\(1\)"),
        (images(), labels()[:, None], r"labels have the shape \(12, 1\).*labels.flatten\(\)"),
        (images()[:0], labels(0), "there are no images, but at least one is needed"),
    ],
)
def test_the_error_for_images_or_labels_that_are_not_as_declared_says_what_is_wrong_and_the_mend(
    samples, targets, message, split
):
    with pytest.raises(ValueError, match=rf"^given, {split} split: .*{message}"):
        Given(samples, targets).split(split)


def test_the_error_for_an_empty_test_split_names_the_training_that_needs_none():
    hint = "; with callbacks=minimal a training needs no test split"
    for split, end in (("test", f"hold out more of them{hint}"), ("train", "hold out more of them")):
        with pytest.raises(ValueError, match=f"{end}$"):
            Given(images()[:0], labels(0)).split(split)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (POINTS.double(), r"points are float64, but must be float32: .*\.float\(\)"),
        (POINTS.where(POINTS.abs() < 0.99, torch.nan), "2 of 12 points are not finite: remove them"),
        (POINTS.where(POINTS < 0.97, torch.inf), "1 of 12 points are not finite"),
        (POINTS * 3, r"points reach from -3 to 3, but must lie in \[-1, 1\]: shift and scale them"),
        (POINTS[:, :1], r"points have the shape \(1,\), but \(2,\) is declared"),
    ],
)
def test_the_error_for_points_that_are_not_as_declared_says_what_is_wrong_and_the_mend(points, message):
    with pytest.raises(ValueError, match=rf"^given, train split: .*{message}"):
        GivenPoints(points, labels()).setup("fit")


def test_points_in_range_are_accepted():
    assert len(GivenPoints(POINTS, labels()).split("train").labels) == 10


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_images_and_labels_may_be_arrays_with_labels_of_any_integer_type(dtype):
    data = Given(images().numpy(), labels().to(dtype).numpy())
    found = data.split("test")
    assert found.samples.dtype == torch.uint8
    assert (found.labels.dtype, found.labels.tolist()) == (torch.int64, labels().tolist())


def test_a_class_without_training_samples_is_allowed_and_named(capsys):
    Given(images(), labels() // 2).setup("fit")
    assert "given has no training images of c: the model can't learn such a class" in capsys.readouterr().out


def test_nothing_is_printed_where_every_class_has_training_samples(capsys):
    Given(images(), labels(), validation_size=3).setup("fit")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("count", [3, 1])
def test_a_training_set_smaller_than_the_validation_is_refused(count):
    with pytest.raises(ValueError, match=rf"given has {count} training images.*lower data.batch_size or"):
        Given(images(count, 1, 4, 6), labels(count), validation_size=4).setup("fit")


def test_the_number_of_samples_of_each_class_is_counted():
    data = Given(images(), torch.tensor([0] * 8 + [1] * 4), validation_size=0)
    assert data.class_counts("train").tolist() == [8, 4, 0]
