"""The results of an evaluation: the classes that hold them, and the files they are written to and read from.

results.json     everything but the pictures, in full precision
pictures.npz     the arrays of each row, named ``<number of the row>.<name>``
results.csv      an export: a row for every method and scale
intervals.csv    an export: value, low and high of every measure, a row each
per_class.csv    an export: a row for every method, scale and class
"""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guided_diffusion.utils.files import atomic_write

SETTING = ("method", "scale", "scale_minus_one", "sampler", "steps", "num_samples", "labels")
COST = ("nfe", "seconds")
KEY = ("method", "scale", "sampler", "steps")

COLUMNS = (
    *SETTING,
    *("accuracy", "accuracy_low", "accuracy_high", "precision", "recall", "f1", "fld", "fld_floor", "kid"),
    *("improved_precision", "improved_recall", "density", "coverage", "diversity", "saturation", "nearest"),
    *COST,
)
"""The columns of results.csv for images. Columns for the options that a sweep varied follow."""

CROSS_COLUMNS = ("cross_accuracy", "cross_accuracy_low", "cross_accuracy_high")
"""The columns that follow those of images with a second judge (``judge=both``)."""

INCEPTION_COLUMNS = (
    *("inception_fid", "inception_fid_floor", "inception_kid", "inception_kid_low", "inception_kid_high"),
    *("inception_kid_floor", "inception_network", "reference_split", "reference_samples", "weights"),
)
"""The columns that come last with ``inception``."""

PUBLISHED, OTHER = "published", "other"
"""The weights of the Inception network, in column ``inception_network``: those that papers use, or any others."""

POINT_COLUMNS = (
    *SETTING,
    *("distance_mean", "distance_mean_floor", "distance_p95", "distance_p95_floor"),
    *("off_curve", "off_curve_low", "off_curve_high", "off_curve_floor", "own_pattern", "own_pattern_floor"),
    *("sliced_wasserstein", "sliced_wasserstein_floor", "mmd", "mmd_floor"),
    *("total_variation", "total_variation_floor", "kl", "kl_floor", "saturation"),
    *COST,
)
"""The columns of results.csv for points in the plane. A floor is the value for as many true points."""


class Interval(NamedTuple):
    """A measured value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Pictures(NamedTuple):
    """Sample images in [-1, 1] of one row, and the judge's predictions for all samples of the row."""

    strip: NDArray[np.float32]
    """The first samples of each class, shape (k, c, h, w); every row of an evaluation has the same noise and labels."""
    means: NDArray[np.float32]
    """The mean image of each class, shape (classes, c, h, w)."""
    uncertain: NDArray[np.float32]
    """The samples whose label the judge finds least likely, shape (m, c, h, w); the next three fields describe them."""
    uncertain_labels: NDArray[np.int64]
    uncertain_predictions: NDArray[np.int64]
    uncertain_probabilities: NDArray[np.float32]
    confusion: NDArray[np.int64]
    """The number of samples by label (row) and predicted class (column), with extra ones, shape (classes, classes)."""
    predictions: NDArray[np.int64]
    """The predicted class of every sample but the extra ones, shape (num_samples,)."""
    probabilities: NDArray[np.float32]
    """The probability that the judge gives to the label of each of these samples, shape (num_samples,)."""
    labels: NDArray[np.int64]
    """The label of each of these samples, shape (num_samples,)."""


class PointPictures(NamedTuple):
    """Sample points of one row, and the density to draw them on."""

    points: NDArray[np.float32]
    """The first samples of each class, shape (classes, k, 2); every row of an evaluation has the same noise."""
    densities: NDArray[np.float32]
    """The density of each class on a grid, 1 at its maximum, shape (classes, cells, cells)."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """The measurements of one method at one scale."""

    method: str
    scale: float
    sampler: str
    steps: int
    num_samples: int
    """The number of samples, without the extra ones of rare classes."""
    measured: Mapping[str, Interval]
    floors: Mapping[str, float]
    """The value that real data reach, by measure; nan where it is undefined."""
    nfe: float
    """The number of network evaluations per sample."""
    seconds: float
    per_class: Sequence[Mapping[str, Any]]
    """For each class: ``class``, ``class_name``, ``count`` (extra samples included) and the measures of the class."""
    pictures: Any
    """``Pictures`` of images or ``PointPictures`` of points."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The values of the options that the sweep varied."""
    kind: str = "images"
    """The kind of the data, ``images`` or ``points``."""
    columns: Sequence[str] = COLUMNS
    """The columns of results.csv for this kind of data."""
    labels: str = ""
    """The way labels were drawn: ``proportional`` or ``equal``; empty in older results, which drew them equally."""
    weights: str = ""
    """The weights of the diffusion model, ``ema`` or ``raw``; empty in older results."""
    facts: Mapping[str, str | int] = field(default_factory=dict)
    """What else the columns name, such as the split that samples were compared with."""

    @property
    def row(self) -> dict[str, Any]:
        """The row of results.csv."""
        values = vars(self) | {"scale_minus_one": self.scale - 1} | dict(self.facts)
        for name, (value, low, high) in self.measured.items():
            values |= {name: value, f"{name}_low": low, f"{name}_high": high}
        values |= {f"{name}_floor": value for name, value in self.floors.items()}
        return {name: values[name] for name in self.columns} | dict(self.options)

    @property
    def key(self) -> dict[str, Any]:
        """The columns that identify this row in intervals.csv and per_class.csv."""
        return {name: getattr(self, name) for name in KEY} | dict(self.options)


@dataclass(frozen=True)
class Results:
    """All rows of an evaluation, or of a sweep of evaluations."""

    rows: Sequence[Result]
    about: Mapping[str, Any]
    """Facts about the whole evaluation: ``kind``, ``data``, ``class_names``, ``checkpoint``, ``weights``, ``seed``; for
    images ``judge`` (the name of its network) and ``judge_ceiling``; for a sweep ``failed``, the jobs without results.
    """

    @property
    def kind(self) -> str:
        """The kind of the data, ``images`` or ``points``."""
        return self.about.get("kind", "images")


def save(results: Results, folder: Path) -> None:
    """Write the files that the docstring of this module lists; results.csv comes last."""
    pictures = [(f"{number}.", row.pictures._asdict()) for number, row in enumerate(results.rows)]
    with atomic_write(folder / "pictures.npz") as path:
        np.savez_compressed(path, **{prefix + name: arrays[name] for prefix, arrays in pictures for name in arrays})
    rows = [{name: value for name, value in vars(row).items() if name != "pictures"} for row in results.rows]
    with atomic_write(folder / "results.json") as path:
        path.write_text(json.dumps({"about": dict(results.about), "rows": rows}, indent=1) + "\n")
    measured = [(row.key, name, interval) for row in results.rows for name, interval in row.measured.items()]
    write_csv(folder / "intervals.csv", [key | {"measure": name} | one._asdict() for key, name, one in measured])
    write_csv(folder / "per_class.csv", [row.key | dict(one) for row in results.rows for one in row.per_class])
    write_csv(folder / "results.csv", [row.row for row in results.rows])


def read(folder: Path) -> Results:
    """Return the results that ``save`` wrote to a folder.

    Raises:
        ValueError: If the folder has no results.json, or the pictures are those of an earlier version.
    """
    outdated = f"{folder} holds no evaluation of this version (results.json, pictures.npz): evaluate again"
    if not (folder / "results.json").is_file():
        raise ValueError(outdated)
    content = json.loads((folder / "results.json").read_text())
    with np.load(folder / "pictures.npz") as arrays:
        pictures = [_pictures(arrays, number) for number in range(len(content["rows"]))]
    if None in pictures:
        raise ValueError(outdated)
    for row in content["rows"]:
        row["measured"] = {name: Interval(*values) for name, values in row["measured"].items()}
    rows = [Result(**row, pictures=shown) for row, shown in zip(content["rows"], pictures, strict=True)]
    return Results(rows, content["about"])


def _pictures(arrays: Mapping[str, NDArray[Any]], number: int) -> Pictures | PointPictures | None:
    """Return the pictures of a row; None if neither class has exactly these arrays.

    Older files hold no labels of images: theirs cycle through the classes.
    """
    found = {name.partition(".")[2]: arrays[name] for name in arrays if name.startswith(f"{number}.")}
    if "confusion" in found:
        found = {"labels": np.arange(len(found["predictions"])) % len(found["confusion"])} | found
    return next((one(**found) for one in (Pictures, PointPictures) if set(one._fields) == set(found)), None)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table with a column for every key that occurs in a row; floats have six significant digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({name: f"{value:.6g}" if isinstance(value, float) else value for name, value in row.items()})


def describe_setting(setting: Any) -> str:
    """Return the class of a setting and the fields that differ from their defaults.

    For example ``ClassifierGuidance(base=conditional)``. The scale is left out because it is the axis of the plots, and
    classifier and weak model because all rows share them.
    """
    if isinstance(setting, partial):
        name, differing = setting.func.__name__, [(key, value) for key, value in setting.keywords.items() if value]
    elif is_dataclass(setting):
        shown = [one for one in fields(setting) if one.name not in ("scale", "classifier", "weak")]
        values = [(one.name, getattr(setting, one.name), one.default) for one in shown]
        name, differing = type(setting).__name__, [(key, value) for key, value, default in values if value != default]
    else:
        return str(setting.__name__)
    return f"{name}({', '.join(f'{key}={value}' for key, value in differing)})" if differing else name
