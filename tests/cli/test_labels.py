import pytest
import torch

from guided_diffusion.cli.labels import class_numbers, labels_of_images
from guided_diffusion.cli.source import Source

NAMES = ("cat", "dog", "7")


@pytest.mark.parametrize(
    ("labels", "expected"),
    [([2, 0, 0, 1], [2, 0, 0, 1]), (["dog", "cat", 2], [1, 0, 2]), (["7"], [2]), ([0], [0])],
)
def test_classes_are_given_by_number_or_name_in_any_order_and_with_repeats(labels, expected):
    assert class_numbers(labels, NAMES) == expected


@pytest.mark.parametrize("label", [3, -1, "fox", "Cat", True, 1.0, None])
def test_a_label_that_is_no_class_is_refused_with_the_list_of_classes(label):
    with pytest.raises(ValueError, match=r"labels must be among 0 \(cat\), 1 \(dog\), 2 \(7\); got \["):
        class_numbers([0, label], NAMES)


def test_an_empty_list_of_labels_is_refused():
    with pytest.raises(ValueError, match=r"from_labels must be among .*; got none"):
        class_numbers([], NAMES, "from_labels")


def source(labels, count=3):
    return Source(torch.zeros(count, 2), [], labels, [])


@pytest.mark.parametrize(
    ("labels", "own", "expected"),
    [([1], None, [1, 1, 1]), ([2, 0, 1], [0, 0, 0], [2, 0, 1]), (None, [2, 1, 0], [2, 1, 0])],
)
def test_given_images_have_one_label_for_all_or_one_for_each_or_those_of_the_file(labels, own, expected):
    assert labels_of_images(labels, source(own), 3) == expected


@pytest.mark.parametrize(
    ("labels", "own", "message"),
    [
        ([1, 2], None, "labels must hold one class for all of the 3 images or one for each, got 2"),
        (None, None, "labels must hold one class for all of the 3 images or one for each, got none"),
        (None, [0, 1, 3], r"the file's label 3 is no class of the model: add labels=\[...\]"),
    ],
)
def test_labels_that_do_not_fit_the_images_are_refused(labels, own, message):
    with pytest.raises(ValueError, match=message):
        labels_of_images(labels, source(own), 3)


def test_a_number_that_is_also_the_name_of_another_class_is_refused():
    names = ["10", "2", "5"]
    assert class_numbers(["2", "10"], names) == [1, 0]
    assert class_numbers([0, 1], names) == [0, 1]
    for label in (2, 10):
        with pytest.raises(
            ValueError, match="may be a number or the name of a class: write names, in quotes: '10', '2'"
        ):
            class_numbers([label], names)
