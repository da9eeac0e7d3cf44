"""Pictures of samples: grids, curves and animations. Pixels are shown on the fixed range [-1, 1]."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from guided_diffusion.data import denormalise
from guided_diffusion.utils.files import atomic_write


def grid(images: Float[Tensor, "n c h w"], columns: int, min_size: int = 28) -> UInt8[Tensor, "height width 3"]:
    """Images side by side, ``columns`` in a row, each enlarged to ``min_size`` pixels or more, a white line between."""
    zoom = max(1, -(-min_size // images.shape[-1]))
    pixels = F.interpolate(images.float().clamp(-1, 1), scale_factor=zoom, mode="nearest")
    return denormalise(make_grid(pixels, nrow=columns, padding=2, pad_value=1)).permute(1, 2, 0).contiguous()


def save_grid(images: Float[Tensor, "n c h w"], path: str | Path, columns: int | None = None) -> None:
    """A PNG of images side by side, by default in a square."""
    columns = columns or int(np.ceil(len(images) ** 0.5))
    with atomic_write(path) as temporary:
        Image.fromarray(grid(images, columns).numpy()).save(temporary)


def save_labelled_grid(
    images: Float[Tensor, "rows columns c h w"], path: str | Path, rows: Sequence[str], columns: Sequence[str]
) -> None:
    """A PNG of images in rows and columns, with a name for each."""
    pixels = grid(images.flatten(0, 1), columns=images.shape[1]).numpy()
    height, width = pixels.shape[:2]
    left, top, dpi = 60, 40, 100
    figure = Figure(figsize=((width + left) / dpi * 2, (height + top) / dpi * 2), dpi=dpi)
    axes = figure.add_axes((left / (width + left), 0, width / (width + left), height / (height + top)))
    axes.imshow(pixels, interpolation="nearest", aspect="auto")
    axes.set_xticks((np.arange(len(columns)) + 0.5) * width / len(columns), columns)
    axes.set_yticks((np.arange(len(rows)) + 0.5) * height / len(rows), rows)
    if any(len(name) > 3 for name in columns):
        axes.tick_params(axis="x", labelrotation=25)
    axes.tick_params(length=0, labelsize=11, labeltop=True, labelbottom=False)
    axes.spines[:].set_visible(False)
    _save(figure, path)


def save_animation(frames: Sequence[UInt8[Tensor, "height width 3"]], path: str | Path, fps: int = 10) -> None:
    """A GIF and an MP4, at ``path`` with these suffixes; the last frame stays for two seconds."""
    pictures = [Image.fromarray(frame.numpy()) for frame in frames]
    durations = [1000 // fps] * (len(pictures) - 1) + [2000]
    with atomic_write(Path(path).with_suffix(".gif")) as temporary:
        pictures[0].save(temporary, save_all=True, append_images=pictures[1:], duration=durations, loop=0)
    video = torch.stack([*frames, *[frames[-1]] * (2 * fps)])
    even = video[:, : video.shape[1] // 2 * 2, : video.shape[2] // 2 * 2]  # the codec needs even sizes
    with atomic_write(Path(path).with_suffix(".mp4")) as temporary:
        imageio.imwrite(temporary, even.numpy(), fps=fps, codec="libx264", macro_block_size=1)


def _save(figure: Figure, path: str | Path) -> None:
    FigureCanvasAgg(figure)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight", pad_inches=0.05)
