"""How an evaluation is shown, by what was evaluated: ``EXHIBITS["images"]`` and ``EXHIBITS["points"]``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image

from guided_diffusion.evaluation.plots.image_evaluation import save_plots
from guided_diffusion.evaluation.plots.image_grid import grid
from guided_diffusion.evaluation.plots.point_evaluation import save_point_plots, scatter_of
from guided_diffusion.evaluation.results import Result, Results
from guided_diffusion.evaluation.summary import read_images, read_points, show_images, show_points

STRIP_COLUMNS, STRIP_ROWS = 10, 2


@dataclass(frozen=True)
class Exhibit:
    """What a page, a shell and a dashboard show of an evaluation."""

    save_plots: Callable[[Results, Path], dict[str, Path]]
    """Writes all plots; the PNGs come back by their name."""
    captions: Mapping[str, str]
    """Of the plots that all curves share."""
    captions_of_curve: Mapping[str, str]
    """Of the plots of one curve."""
    wide: tuple[str, ...]
    """Those of these that need the whole width of a page."""
    reading: Callable[[Results], str]
    """A paragraph of plain text."""
    show: Callable[[Results], None]
    """Prints a table."""
    strip: Callable[[Result, Sequence[str]], Image.Image]
    """The samples of a row, given the names of the classes."""
    strip_class: str
    """Of the picture, in the page's style."""
    strip_measures: Mapping[str, str]
    """What is said below it, by measure."""
    floors: Mapping[str, str]
    """Floors that have a column of their own in the page's table, and its heading."""
    drawings: Callable[[Result], dict[str, UInt8[np.ndarray, "height width 3"]]]
    """What dashboards show at every scale."""


def strip_of_images(row: Result, class_names: Sequence[str]) -> Image.Image:
    images = torch.from_numpy(row.pictures.strip[: STRIP_COLUMNS * STRIP_ROWS])
    pixels = Image.fromarray(grid(images, columns=STRIP_COLUMNS, min_size=1).numpy())
    return pixels.convert("L") if images.shape[1] == 1 else pixels


def side_by_side(images: Float32[np.ndarray, "n c h w"]) -> UInt8[np.ndarray, "height width 3"]:
    return grid(torch.from_numpy(images), columns=len(images)).numpy()


def drawings_of_images(row: Result) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
    """Images side by side."""
    return {"strip": side_by_side(row.pictures.strip), "means": side_by_side(row.pictures.means)}


def drawings_of_points(row: Result) -> dict[str, UInt8[np.ndarray, "height width 3"]]:
    names = [str(of_class["class_name"]) for of_class in row.per_class]
    return {"scatter": np.asarray(scatter_of(row, names))}


EXHIBITS = {
    "images": Exhibit(
        save_plots=save_plots,
        captions={
            "accuracy": "Judge accuracy against guidance scale, with 95 % intervals. Dashed: the judge on real test "
            "images.",
            "frechet_distance": "Fréchet distance against guidance scale, with 95 % intervals. Dashed: real images.",
            "precision_recall": "Improved precision against improved recall, along the guidance scale.",
        },
        captions_of_curve={
            "per_class": "Accuracy of each class against guidance scale.",
            "confusion": "What the judge sees (column) in samples of each label (row).",
            "means": "Mean image of each class (column) at each scale (row).",
            "uncertain": "Samples whose label the judge thinks least likely: label \N{RIGHTWARDS ARROW} what it sees, "
            "and the probability it gives to the label.",
        },
        wide=("confusion", "means", "uncertain"),
        reading=read_images,
        show=show_images,
        strip=strip_of_images,
        strip_class="strip",
        strip_measures={"accuracy": "accuracy", "fld": "Fréchet distance", "saturation": "saturated pixels"},
        floors={"fld": "Fréchet floor"},
        drawings=drawings_of_images,
    ),
    "points": Exhibit(
        save_plots=save_point_plots,
        captions={
            "off_curve": "Share of points further than 0.05 from their curve, with 95 % intervals. Dashed: true ones.",
            "distance": "Mean distance of points to their curve, with 95 % intervals. Dashed: true points.",
            "sliced_wasserstein": "Sliced Wasserstein distance to the data of the class, with 95 % intervals. Dashed: "
            "true points.",
            "total_variation": "Total variation between the histogram of the points and the exact density, with 95 % "
            "intervals. Dashed: true points.",
        },
        captions_of_curve={
            "scatter": "Samples of each class (column) at each scale (row), over the density of the data.",
            "per_class": "Share of points off their curve, of each class, against guidance scale.",
        },
        wide=("scatter",),
        reading=read_points,
        show=show_points,
        strip=scatter_of,
        strip_class="scatter",
        strip_measures={
            "off_curve": "off the curve",
            "distance_mean": "mean distance",
            "sliced_wasserstein": "sliced Wasserstein",
        },
        floors={
            "off_curve": "true points off the curve",
            "sliced_wasserstein": "sliced Wasserstein of true points",
            "total_variation": "total variation of true points",
        },
        drawings=drawings_of_points,
    ),
}
"""By the kind of the data."""
