"""Grids of images, with and without labels, and animations. Pixels are on the fixed range [-1, 1].

Images of one channel are grey, and those of three are red, green and blue. Of any other number, the channels are drawn
side by side in grey, with a thin line between them.
"""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
import torch.nn.functional as F
from imageio_ffmpeg import get_ffmpeg_exe
from jaxtyping import Float, Float32, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from guided_diffusion.data import denormalise
from guided_diffusion.utils.files import atomic_write

MAX_SIDE = 30_000
"""The longest side of a labelled grid, in pixels; further rows and columns are left out."""

MAX_VIDEO_SIDE = 8_000
"""The widest frame of an animation, in pixels; further samples are left out."""

CODEC = "libx264"
"""The encoder of videos."""

LINE = 2
"""The width of the white lines between images, in pixels."""


def grid(images: Float[Tensor, "n c h w"], columns: int, min_size: int = 28) -> UInt8[Tensor, "height width 3"]:
    """Return images side by side with white lines between them; values outside [-1, 1] are clamped.

    Small images are enlarged by a whole number, until their longer side has ``min_size`` pixels and the other a
    quarter of that.
    """
    pixels = _tiles(images, min_size)
    return denormalise(make_grid(pixels, nrow=columns, padding=LINE, pad_value=1)).permute(1, 2, 0).contiguous()


def _tiles(images: Float[Tensor, "n c h w"], min_size: int) -> Float[Tensor, "n shown height width"]:
    """Return the images as they are drawn: enlarged, with one channel or three."""
    sides = images.shape[-2:]
    zoom = max(1, -(-min_size // max(sides)), -(-min_size // (4 * min(sides))))
    pixels = F.interpolate(images.float().clamp(-1, 1), scale_factor=zoom, mode="nearest")
    if pixels.shape[1] in (1, 3):
        return pixels
    return torch.cat([F.pad(channel, (0, 1), value=1) for channel in pixels.split(1, dim=1)], dim=3)[..., :-1]


def columns_within(images: Float[Tensor, "n c h w"], width: int, min_size: int = 28) -> int:
    """Return how many of these images a grid of at most ``width`` pixels has in a row, at least one."""
    return max(1, (width - LINE) // (_tiles(images[:1], min_size).shape[3] + LINE))


def literal(text: str) -> str:
    """Escape a text, such as the name of a class, so that matplotlib does not read it as mathematics."""
    return text.replace("$", r"\$")


def side_by_side(images: Float32[np.ndarray, "n c h w"]) -> UInt8[np.ndarray, "height width 3"]:
    """Return images in one row."""
    return grid(torch.from_numpy(images), columns=len(images)).numpy()


def save_grid(images: Float[Tensor, "n c h w"], path: str | Path, columns: int | None = None) -> None:
    """Write a PNG of images side by side, by default in a square."""
    columns = columns or int(np.ceil(len(images) ** 0.5))
    with atomic_write(path) as temporary:
        Image.fromarray(grid(images, columns).numpy()).save(temporary)


def save_labelled_grid(
    images: Float[Tensor, "rows columns c h w"], path: str | Path, rows: Sequence[str], columns: Sequence[str]
) -> None:
    """Write a picture of ``labelled_grid``, in the format of the path's suffix."""
    write_figure(labelled_grid(images, rows, columns), path)


def labelled_grid(images: Float[Tensor, "rows columns c h w"], rows: Sequence[str], columns: Sequence[str]) -> Figure:
    """Return a figure of images in named rows and columns, as many as fit into ``MAX_SIDE`` pixels."""
    tile_height, tile_width = (side + LINE for side in _tiles(images[0, :1], 28).shape[2:])
    images = images[: MAX_SIDE // tile_height, : MAX_SIDE // tile_width]
    rows, columns = rows[: images.shape[0]], columns[: images.shape[1]]
    pixels = grid(images.flatten(0, 1), columns=images.shape[1]).numpy()
    height, width = pixels.shape[:2]
    left, top, dpi = 60, 40, 100
    zoom = 2 if max(height, width) <= MAX_SIDE // 2 else 1
    figure = Figure(figsize=((width + left) / dpi * zoom, (height + top) / dpi * zoom), dpi=dpi)
    axes = figure.add_axes((left / (width + left), 0, width / (width + left), height / (height + top)))
    axes.imshow(pixels, interpolation="nearest", aspect="auto")
    axes.set_xticks((np.arange(len(columns)) + 0.5) * width / len(columns), [literal(name) for name in columns])
    axes.set_yticks((np.arange(len(rows)) + 0.5) * height / len(rows), [literal(name) for name in rows])
    if any(len(name) > 3 for name in columns):
        axes.tick_params(axis="x", labelrotation=25)
    axes.tick_params(length=0, labelsize=11, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


def check_video_encoder() -> None:
    """Raise ``ValueError`` if there is no ffmpeg that ``save_animation`` can write an MP4 with."""
    try:
        program = get_ffmpeg_exe()
        found = subprocess.run([program, "-hide_banner", "-encoders"], capture_output=True, text=True, check=True)
    except (RuntimeError, OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"an animation needs ffmpeg, which can't be run: {error}; see IMAGEIO_FFMPEG_EXE") from error
    if CODEC not in found.stdout:
        raise ValueError(f"an animation needs the encoder {CODEC}, which {program} lacks; see IMAGEIO_FFMPEG_EXE")


def save_animation(frames: Sequence[UInt8[Tensor, "height width 3"]], path: str | Path, fps: int = 10) -> None:
    """Write a GIF and an MP4, with the path's suffix replaced; the last frame stays for two seconds."""
    pictures = [Image.fromarray(frame.numpy()) for frame in frames]
    durations = [1000 // fps] * (len(pictures) - 1) + [2000]
    with atomic_write(Path(path).with_suffix(".gif")) as temporary:
        pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    video = torch.stack([*frames, *[frames[-1]] * (2 * fps)])
    even = video[:, : video.shape[1] // 2 * 2, : video.shape[2] // 2 * 2]  # the codec needs even sizes
    with atomic_write(Path(path).with_suffix(".mp4")) as temporary:
        imageio.imwrite(temporary, even.numpy(), plugin="FFMPEG", fps=fps, codec=CODEC, macro_block_size=1)


def write_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure in the format of the path's suffix, without the empty margin."""
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight", pad_inches=0.05)
