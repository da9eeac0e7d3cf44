import numpy as np
import pytest
import torch

from guided_diffusion.data import NpzImages

LABELS = np.arange(20) % 3
RANDOM = np.random.default_rng(0)


def images(*shape):
    return RANDOM.integers(256, size=shape or (20, 6, 8), dtype=np.uint8)


@pytest.fixture
def archive(tmp_path):
    """Return a function that writes arrays and returns the dataset of the file."""

    def written(**arrays):
        np.savez(tmp_path / "mine.npz", **arrays)
        return NpzImages(tmp_path / "mine.npz", batch_size=2, validation_fraction=0.2, test_fraction=0.2)

    return written


@pytest.mark.parametrize(
    ("shape", "declared"),
    [
        ((20, 6, 8), (1, 6, 8)),
        ((20, 6, 8, 3), (3, 6, 8)),
        ((20, 3, 6, 8), (3, 6, 8)),
        ((20, 6, 8, 1), (1, 6, 8)),
        ((20, 2, 6, 8), (2, 6, 8)),
        ((20, 6, 8, 4), (4, 6, 8)),
    ],
)
def test_the_shape_is_that_of_the_arrays(archive, shape, declared):
    data = archive(images=images(*shape), labels=LABELS)
    assert (data.name, data.shape, data.class_names) == ("mine", declared, ("0", "1", "2"))
    for split in ("train", "val", "test"):
        assert tuple(data.split(split).samples.shape[1:]) == declared
        assert 0 not in data.class_counts(split)


def test_every_pixel_is_where_it_was(archive):
    pixels = images(20, 6, 8, 3)
    pixels[:, 0, 0, 0] = np.arange(20)
    data = archive(images=pixels, labels=LABELS)
    found = torch.cat([data.split(split).samples for split in ("train", "val", "test")])
    order = found[:, 0, 0, 0].argsort()
    assert torch.equal(found[order], torch.from_numpy(pixels).permute(0, 3, 1, 2))


def test_images_for_testing_and_names_of_classes_can_be_given(archive):
    more = {"test_images": images(5, 6, 8), "test_labels": LABELS[:5], "class_names": np.array(["a", "b", "c", "d"])}
    data = archive(images=images(), labels=LABELS.astype(np.int16), **more)
    assert data.class_names == ("a", "b", "c", "d")
    assert torch.equal(data.split("test").samples[:, 0], torch.from_numpy(more["test_images"]))
    assert len(data.split("train").labels) + len(data.split("val").labels) == 20


@pytest.mark.parametrize(
    ("names", "expected"),
    [(["a", "b", "c"], ("a", "b", "c")), ([b"a", "é".encode(), b"c"], ("a", "é", "c")), ([3, 5, 7], ("3", "5", "7"))],
)
def test_names_of_classes_may_be_texts_bytes_or_numbers(archive, names, expected):
    assert archive(images=images(), labels=LABELS, class_names=np.array(names)).class_names == expected


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a", "b", "a"], "class_names has a more than once: give each class its own name"),
        ([["a", "b"], ["c", "d"]], r"class_names has the shape \(2, 2\), but must be a list"),
        ("a", r"class_names has the shape \(\), but must be a list with a name per class"),
        ([b"\xff"], "class_names has bytes that are not UTF-8: write texts"),
    ],
)
def test_the_error_for_other_names_of_classes_says_what_is_wrong(archive, names, message):
    with pytest.raises(ValueError, match=rf"mine\.npz: {message}"):
        archive(images=images(), labels=LABELS, class_names=np.array(names))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": images()}, "has no array labels, only images: add it"),
        ({"x": images(), "labels": LABELS}, "has no array images, only x, labels: add it"),
        ({"images": images(), "labels": LABELS, "test_images": images()}, "has no array test_labels"),
        ({"images": images(20, 5), "labels": LABELS}, r"images has the shape \(20, 5\): it must be \(n, h, w\)"),
        ({"images": images(20, 5, 6, 7), "labels": LABELS}, r"shape \(20, 5, 6, 7\): it must be .*1 to 4 channels"),
        ({"images": images(20, 3, 6, 3), "labels": LABELS}, "either axis may be the channels"),
        ({"images": images(), "labels": LABELS + 1}, "labels run from 1 to 3, .*: subtract 1"),
        ({"images": images(), "labels": LABELS - 1}, "labels run from -1 to 1"),
        ({"images": images(), "labels": LABELS * 2}, "labels run from 0 to 4, .*number the labels without gaps"),
        ({"images": images() / 255, "labels": LABELS}, "images are float64 .*multiply them by 255"),
        ({"images": images().astype(">u2") * 257, "labels": LABELS}, "images are uint16 .*divide them by 257"),
        ({"images": images(), "labels": LABELS[:19]}, "20 images but 19 labels"),
        ({"images": images(), "labels": LABELS.astype(float)}, "labels are float64, but must be whole numbers"),
        ({"images": images(), "labels": LABELS.astype(complex)}, "labels are complex128, but must be whole numbers"),
        ({"images": images(), "labels": np.eye(3, dtype=int)[LABELS]}, r"labels.argmax\(1\)"),
        ({"images": images(), "labels": np.array(["a"] * 20)}, "images and labels must be numbers"),
        ({"images": images(), "labels": np.array([None] * 20)}, "can't be read .*: write an .npz file"),
    ],
)
def test_the_error_for_other_arrays_says_what_is_wrong(archive, arrays, message):
    with pytest.raises(ValueError, match=message):
        archive(**arrays).setup("fit")


def test_the_error_for_a_missing_file_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no file .*none\.npz: name an \.npz file with data\.path"):
        NpzImages(tmp_path / "none.npz", 2, 0.1, 0.1)


def test_the_error_for_a_missing_path_names_the_setting():
    with pytest.raises(ValueError, match=r"path is missing: add data\.path=FILE"):
        NpzImages(None, 2, 0.1, 0.1)


@pytest.mark.parametrize("content", [b"", b"no archive", b"PK\x03\x04 and so on"])
def test_the_error_for_another_file_says_so(tmp_path, content):
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(ValueError, match=r"mine\.npz can't be read .*: write an \.npz file"):
        NpzImages(tmp_path / "mine.npz", 2, 0.1, 0.1)
