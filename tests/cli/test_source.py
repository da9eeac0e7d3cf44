import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from guided_diffusion.cli.source import check_source, read_mask, read_source

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4


def config(**changes):
    default = {"from": None, "strength": None, "mask": None, "invert": False, "from_labels": None, "labels": None}
    return OmegaConf.create(default | {"compare": False, "num_samples": None} | changes)


def read(path, shape=(1, 8, 8), **changes):
    return read_source(config(**{"from": str(path)} | changes), shape)


@pytest.fixture
def png(tmp_path):
    def written(pixels, name="image.png", mode=None):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).convert(mode).save(path)
        return path

    return written


def test_an_image_of_the_right_size_keeps_its_pixels(png):
    source = read(png(GREY))
    torch.testing.assert_close(source.samples[0, 0], torch.from_numpy(GREY).float() / 127.5 - 1)
    assert (source.names, source.labels) == (["image"], None)


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "1", "L"])
@pytest.mark.parametrize("channels", [1, 3])
def test_any_image_gets_the_channels_and_the_size_of_the_model(mode, channels, png):
    samples = read(png(np.full((20, 30), 255, np.uint8), mode=mode), (channels, 4, 6)).samples
    torch.testing.assert_close(samples, torch.ones(1, channels, 4, 6))


def test_an_oblong_image_is_cropped_to_the_middle(png):
    pixels = np.zeros((8, 24), np.uint8)
    pixels[:, 8:16] = GREY
    torch.testing.assert_close(read(png(pixels)).samples[0, 0], torch.from_numpy(GREY).float() / 127.5 - 1)


def test_a_folder_is_all_of_its_images_by_name(png, tmp_path):
    for name in ("b.JPG", "a.png", "c.jpeg"):
        png(GREY, f"folder/{name}")
    (tmp_path / "folder" / "notes.txt").write_text("no image")
    source = read(tmp_path / "folder")
    assert source.names == ["a", "b", "c"]
    assert source.samples.shape == (3, 1, 8, 8)
    assert len(source.files) == 3


def test_the_arrays_of_an_earlier_run_come_with_their_labels(tmp_path):
    images = np.linspace(-1, 1, 128, dtype=np.float32).reshape(2, 1, 8, 8)
    np.savez(tmp_path / "samples.npz", images=images, labels=np.array([3, 7]))
    source = read(tmp_path / "samples.npz")
    assert torch.equal(source.samples, torch.from_numpy(images))
    assert source.labels == [3, 7]


def test_uint8_arrays_are_mapped_to_the_range_of_the_model(tmp_path):
    np.savez(tmp_path / "images.npz", images=GREY.reshape(1, 1, 8, 8))
    torch.testing.assert_close(read(tmp_path / "images.npz").samples[0, 0], torch.from_numpy(GREY).float() / 127.5 - 1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path / "nowhere.png", "from: there is no file or folder at .*nowhere.png"),
        (lambda path: path, "from: there is no PNG or JPEG file directly in"),
        (lambda path: bad(path / "image.png"), "image.png can't be read as an image"),
        (lambda path: bad(path / "images.npz"), "images.npz is no .npz file that can be read"),
        (lambda path: floats(path / "image.tiff"), "image.tiff can't be read: its pixels are floating-point numbers"),
        (lambda path: npz(path, labels=np.zeros(1)), "has no array images"),
        (lambda path: npz(path, images=np.zeros((2, 1, 9, 9))), r"must have shape \(n, 1, 8, 8\), got \(2, 1, 9, 9\)"),
        (lambda path: npz(path, images=np.zeros((2, 3, 1, 8, 8))), r"must have shape \(n, 1, 8, 8\), got \(2, 3, 1"),
        (lambda path: npz(path, images=np.full((1, 1, 8, 8), 200.0)), r"must be uint8, or numbers in \[-1, 1\]"),
        (lambda path: npz(path, images=np.full((1, 1, 8, 8), np.nan)), r"must be uint8, or numbers in \[-1, 1\]"),
        (lambda path: npz(path, images=np.array([["a"]])), "images in .* must be uint8, or numbers"),
    ],
)
def test_what_cannot_be_used_is_named_with_the_reason(make, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(make(tmp_path))


def bad(path):
    path.write_bytes(b"half a file")
    return path


def floats(path):
    Image.fromarray(np.full((8, 8), 0.5, np.float32)).save(path)
    return path


def npz(path, **arrays):
    np.savez(path / "arrays.npz", **arrays)
    return path / "arrays.npz"


def test_images_for_a_model_of_points_are_refused(png):
    with pytest.raises(ValueError, match=r"the model makes points, so .* must be an .npz of them"):
        read(png(GREY), (2,))


# Masks


def test_what_is_white_in_a_mask_is_drawn(png):
    pixels = np.zeros((8, 8), np.uint8)
    pixels[4:] = 255
    mask = read_mask(png(pixels), (3, 8, 8))
    assert mask.shape == (3, 8, 8)
    assert torch.equal(mask, torch.from_numpy(pixels > 0).expand(3, 8, 8))


@pytest.mark.parametrize("suffix", [".png", ".npy"])
def test_a_mask_of_another_size_is_resized_to_the_nearest_pixel(suffix, png, tmp_path):
    pixels = np.zeros((16, 32), np.uint8)  # cropped to the middle as an image would be
    pixels[8:, :] = 255
    path = png(pixels) if suffix == ".png" else tmp_path / "mask.npy"
    if suffix == ".npy":
        np.save(path, pixels > 0)
    mask = read_mask(path, (1, 8, 8))
    assert mask[0, 4:].all()
    assert not mask[0, :4].any()


def test_a_mask_of_points_has_a_value_for_each_coordinate(tmp_path):
    np.save(tmp_path / "mask.npy", np.array([True, False]))
    assert read_mask(tmp_path / "mask.npy", (2,)).tolist() == [True, False]


@pytest.mark.parametrize(
    ("array", "shape", "message"),
    [
        (np.ones((8, 8)), (1, 8, 8), "all is white, so nothing is kept: white .* is what is drawn anew"),
        (np.zeros((8, 8)), (1, 8, 8), "nothing is white, so there is nothing to draw"),
        (np.zeros(8), (1, 8, 8), r"must have shape \(height, width\), got \(8,\)"),
        (np.zeros((1, 2)), (2,), r"must have shape \(2,\), got \(1, 2\)"),
    ],
)
def test_a_mask_that_does_not_work_is_refused(array, shape, message, tmp_path):
    np.save(tmp_path / "mask.npy", array)
    with pytest.raises(ValueError, match=message):
        read_mask(tmp_path / "mask.npy", shape)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("no.png", (1, 8, 8), "mask: there is no file at"),
        ("no.npy", (1, 8, 8), "mask: there is no file at"),
        ("mask.png", (2,), "mask: for points it must be an .npy with 2 values"),
    ],
)
def test_a_mask_that_is_missing_or_of_the_wrong_kind_is_named(name, shape, message, tmp_path):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read_mask(tmp_path / name, shape)


# Combinations of settings


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strength": 0.5}, "strength needs images to start from: add from=PATH"),
        ({"mask": "m.png"}, "mask needs images to start from"),
        ({"invert": True}, "invert needs images to start from"),
        ({"from": "a.png"}, "from: say what to do with the images: strength=0.6 .*, mask=PATH .*, invert=true"),
        ({"from": "a.png", "strength": 0.0}, r"strength must be in \(0, 1\], got 0"),
        ({"from": "a.png", "strength": 1.5}, r"strength must be in \(0, 1\], got 1.5"),
        ({"from": "a.png", "invert": True, "strength": 0.5}, "strength doesn't go with invert=true"),
        ({"from": "a.png", "invert": True, "mask": "m.png"}, "mask doesn't go with invert=true"),
        ({"from": "a.png", "invert": True, "compare": True}, "compare doesn't go with invert=true"),
        ({"from": "a.png", "invert": True, "num_samples": 2}, "num_samples must be 1 with invert=true"),
        ({"from": "a.png", "strength": 0.5, "from_labels": [1]}, "from_labels needs invert=true"),
        ({"from": "a.png", "invert": True, "from_labels": [1]}, "from_labels needs invert=true, and labels"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check_source(config(**changes))


@pytest.mark.parametrize(
    "changes", [{}, {"strength": 1.0}, {"mask": "m.png"}, {"mask": "m.png", "strength": 0.4}, {"invert": True}]
)
def test_settings_that_go_together_are_accepted(changes):
    check_source(config(**{"from": "a.png"} | changes) if changes else config())
