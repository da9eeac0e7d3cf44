import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from guided_diffusion.evaluation.plots.image_grid import (
    check_video_encoder,
    grid,
    labelled_grid,
    save_animation,
    save_grid,
    save_labelled_grid,
)


def flat(*values, channels=1, size=8):
    """Images of one grey each."""
    return torch.tensor(values, dtype=torch.float32)[:, None, None, None].expand(-1, channels, size, size)


def pixels(path):
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_drawn_side_by_side_on_the_fixed_range(channels):
    # A dark image stays dark: nothing is rescaled image by image, and what lies outside is clamped.
    picture = grid(flat(-1, -0.5, 0, 0.5, 1, 3, channels=channels), columns=3, min_size=8)
    assert picture.shape == (2 * 10 + 2, 3 * 10 + 2, 3)
    assert picture.dtype == torch.uint8
    centres = picture[[6, 16]][:, [6, 16, 26]]
    assert centres[..., 0].tolist() == [[0, 64, 128], [191, 255, 255]]
    assert (centres == centres[..., :1]).all()
    assert (picture[[0, 1, 10, 11, 20, 21]] == 255).all()  # the lines between


def test_channels_are_red_green_and_blue():
    red = torch.tensor([1.0, -1, -1])[None, :, None, None].expand(1, 3, 8, 8)
    assert grid(red, columns=1)[15, 15].tolist() == [255, 0, 0]


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_other_numbers_of_channels_are_grey_and_side_by_side(channels):
    greys = torch.linspace(-1, 1, channels)
    images = greys[None, :, None, None].expand(2, channels, 28, 28)
    picture = grid(images, columns=1)
    width = 29 * channels - 1
    assert picture.shape == (2 * 30 + 2, width + 4, 3)
    centres = picture[[16, 46]][:, [2 + 14 + 29 * channel for channel in range(channels)]]
    expected = ((greys + 1) * 127.5).round().byte()
    assert (centres == expected[None, :, None]).all()
    assert (picture[2:30, [2 + 28 + 29 * channel for channel in range(channels - 1)]] == 255).all()  # thin lines


@pytest.mark.parametrize(
    ("size", "shown"), [((12, 20), (24, 40)), ((20, 12), (40, 24)), ((30, 22), (30, 22)), ((64, 1), (448, 7))]
)
def test_oblong_images_keep_their_proportions(size, shown):
    picture = grid(torch.zeros(2, 3, *size) - 1, columns=2)
    assert picture.shape == (shown[0] + 4, 2 * shown[1] + 6, 3)


@pytest.mark.parametrize(("shape", "side"), [pytest.param((2, 20_000), 0, marks=pytest.mark.slow), ((20_000, 2), 1)])
def test_a_picture_has_as_many_rows_and_columns_as_can_be_drawn(shape, side, tmp_path):
    images = torch.zeros(1, 1, 1, 28, 28).expand(*shape, 1, 28, 28)
    rows, columns = (["$a"] * count for count in shape)
    shown = labelled_grid(images, rows, columns).axes[0].images[0].get_array().shape
    assert shown[side] == 2 * 30 + 2
    assert 29_000 < shown[1 - side] <= 30_002


def test_names_are_drawn_as_they_are_even_with_dollars(tmp_path):
    save_labelled_grid(torch.zeros(1, 1, 1, 8, 8), tmp_path / "grid.png", rows=["US$ and \\frac CA$"], columns=["$_$"])
    assert pixels(tmp_path / "grid.png").shape[0] > 30


@pytest.mark.parametrize("program", ["no-such-program", "true"])
def test_a_missing_encoder_is_an_error_before_there_are_frames(program, monkeypatch):
    check_video_encoder()
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", program)
    with pytest.raises(ValueError, match=r"an animation needs .*; see IMAGEIO_FFMPEG_EXE$"):
        check_video_encoder()


@pytest.mark.parametrize(("size", "min_size", "zoomed"), [(8, 28, 32), (28, 28, 28), (32, 28, 32), (28, 56, 56)])
def test_small_images_are_enlarged_by_a_whole_number_without_blur(size, min_size, zoomed):
    images = torch.zeros(2, 1, size, size) - 1
    images[..., size // 2 :] = 1
    picture = grid(images, columns=1, min_size=min_size)
    assert picture.shape[:2] == (2 * zoomed + 6, zoomed + 4)
    assert picture.unique().tolist() == [0, 255]


def test_a_grid_is_square_by_default(tmp_path):
    images = flat(*[0] * 9, size=28)
    save_grid(images, tmp_path / "square.png")
    save_grid(images, tmp_path / "row.png", columns=9)
    assert pixels(tmp_path / "square.png").shape == (92, 92, 3)
    assert pixels(tmp_path / "row.png").shape == (32, 272, 3)


def test_images_of_a_labelled_grid_are_in_their_row_and_column(tmp_path):
    greys = torch.linspace(-1, 0.6, 6)
    images = flat(*greys, size=28).unflatten(0, (2, 3))
    save_labelled_grid(images, tmp_path / "grid.png", rows=["w = 0", "w = 1"], columns=["a", "b", "c"])
    picture = pixels(tmp_path / "grid.png")[..., 0].astype(int)
    height, width = picture.shape
    # The labels stand to the left and above, so images lie against the right and the lower edge.
    zoom = 2 * 30
    for row in range(2):
        for column in range(3):
            y, x = height - zoom * (2 - row) + zoom // 2, width - zoom * (3 - column) + zoom // 2
            expected = round((greys[3 * row + column].item() + 1) * 127.5)
            assert abs(picture[y, x] - expected) <= 2, (row, column)


@pytest.mark.parametrize("size", [(40, 60), (41, 61)])  # the video's codec needs even sizes
def test_an_animation_is_written_as_gif_and_mp4_with_every_frame(size, tmp_path):
    greys = [30, 90, 150, 210]
    frames = [torch.full((*size, 3), grey, dtype=torch.uint8) for grey in greys]
    save_animation(frames, tmp_path / "animation", fps=5)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["animation.gif", "animation.mp4"]

    with Image.open(tmp_path / "animation.gif") as gif:
        shown = [
            (np.asarray(frame.convert("L")).mean(), frame.info["duration"]) for frame in ImageSequence.Iterator(gif)
        ]
    assert [duration for _, duration in shown] == [200, 200, 200, 2000]
    assert [mean for mean, _ in shown] == pytest.approx(greys, abs=3)

    video = imageio.imread(tmp_path / "animation.mp4")
    assert video.shape == (4 + 10, 40, 60, 3)  # the last frame stays for two seconds
    assert video.mean((1, 2, 3)) == pytest.approx([*greys, *[210] * 10], abs=5)
