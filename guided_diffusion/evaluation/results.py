"""The results of an evaluation: the classes that hold them, and the files they are written to and read from.

results.json     everything but the pictures, in full precision
pictures.npz     the arrays of each row, named ``<number of the row>.<name>``
results.csv      an export: a row for every method and scale
intervals.csv    an export: value, low and high of every measure, a row each
per_class.csv    an export: a row for every method, scale and class
"""

from __future__ import annotations

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

SETTING = ("method", "scale", "scale_minus_one", "sampler", "steps", "num_samples")
COST = ("nfe", "seconds")


COLUMNS = (
    *SETTING,
    *("accuracy", "accuracy_low", "accuracy_high", "precision", "recall", "f1", "fld", "fld_floor", "kid"),
    *("improved_precision", "improved_recall", "density", "coverage", "diversity", "saturation", "nearest"),
    *COST,
)
"""The columns of results.csv for images. Columns for the options that a sweep varied follow."""


POINT_COLUMNS = (
    *SETTING,
    *("distance_mean", "distance_mean_floor", "distance_p95", "distance_p95_floor"),
    *("off_curve", "off_curve_low", "off_curve_high", "off_curve_floor", "own_pattern", "own_pattern_floor"),
    *("sliced_wasserstein", "sliced_wasserstein_floor", "mmd", "mmd_floor"),
    *("total_variation", "total_variation_floor", "kl", "kl_floor", "saturation"),
    *COST,
)
"""The columns of results.csv for points in the plane. A floor is the value for as many true points."""


KEY = ("method", "scale", "sampler", "steps")


class Interval(NamedTuple):
    """A measured value with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Pictures(NamedTuple):
    """Sample images in [-1, 1] of one row, and the judge's predictions for all samples of the row."""

    strip: NDArray[np.float32]
    """The first samples, shape (k, c, h, w); every row of an evaluation has the same noise and labels."""
    means: NDArray[np.float32]
    """The mean image of each class, shape (classes, c, h, w)."""
    uncertain: NDArray[np.float32]
    """The samples whose label the judge finds least likely, shape (m, c, h, w)."""
    uncertain_labels: NDArray[np.int64]
    uncertain_predictions: NDArray[np.int64]
    uncertain_probabilities: NDArray[np.float32]
    """The probability that the judge gives to the label of each uncertain sample."""
    confusion: NDArray[np.int64]
    """The number of samples by label (row) and predicted class (column), shape (classes, classes)."""
    predictions: NDArray[np.int64]
    """The predicted class of every sample, shape (num_samples,); labels cycle through the classes."""
    probabilities: NDArray[np.float32]
    """The probability that the judge gives to the label of every sample, shape (num_samples,)."""


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
    measured: Mapping[str, Interval]
    """The interval of each measure."""
    floors: Mapping[str, float]
    """The value that real data reach, by measure; nan where it is undefined."""
    nfe: float
    """The number of network evaluations per sample."""
    seconds: float
    per_class: Sequence[Mapping[str, Any]]
    """For each class: ``class``, ``class_name``, ``count`` and the measures of the class."""
    pictures: Any
    """``Pictures`` of images or ``PointPictures`` of points."""
    options: Mapping[str, str] = field(default_factory=dict)
    """The values of the options that the sweep varied."""
    kind: str = "images"
    """The kind of the data, ``images`` or ``points``."""
    columns: Sequence[str] = COLUMNS
    """The columns of results.csv for this kind of data."""

    @property
    def row(self) -> dict[str, Any]:
        """The row of results.csv."""
        values = {
            **{name: interval.value for name, interval in self.measured.items()},
            **{f"{name}_low": interval.low for name, interval in self.measured.items()},
            **{f"{name}_high": interval.high for name, interval in self.measured.items()},
            **{f"{name}_floor": value for name, value in self.floors.items()},
            **{name: getattr(self, name) for name in (*SETTING, *COST) if name != "scale_minus_one"},
            "scale_minus_one": self.scale - 1,
        }
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
    arrays = {
        f"{number}.{name}": array
        for number, row in enumerate(results.rows)
        for name, array in row.pictures._asdict().items()
    }
    with atomic_write(folder / "pictures.npz") as path:
        np.savez_compressed(path, **arrays)
    rows = [{one.name: getattr(row, one.name) for one in fields(row) if one.name != "pictures"} for row in results.rows]
    with atomic_write(folder / "results.json") as path:
        path.write_text(json.dumps({"about": dict(results.about), "rows": rows}, indent=1) + "\n")
    intervals = [
        row.key | {"measure": name} | interval._asdict()
        for row in results.rows
        for name, interval in row.measured.items()
    ]
    write_csv(folder / "intervals.csv", intervals)
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
    rows = []
    for row, shown in zip(content["rows"], pictures, strict=True):
        row["measured"] = {name: Interval(*values) for name, values in row["measured"].items()}
        rows.append(Result(**row, pictures=shown))
    return Results(rows, content["about"])


def _pictures(arrays: Mapping[str, NDArray[Any]], number: int) -> Pictures | PointPictures | None:
    """Return the pictures of a row; None if no class has just these arrays."""
    found = {name.partition(".")[2]: arrays[name] for name in arrays if name.startswith(f"{number}.")}
    return next((one(**found) for one in (Pictures, PointPictures) if set(one._fields) == set(found)), None)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write a table with a column for every key that occurs in a row; floats have six significant digits."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows({name: _rounded(value) for name, value in row.items()} for row in rows)


def _rounded(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def describe_setting(setting: Any) -> str:
    """Return the class of a setting and the fields that differ from their defaults.

    For example ``ClassifierGuidance(base=conditional)``. The scale is left out because it is the axis of the plots, and
    the classifier because all rows share it.
    """
    if isinstance(setting, partial):
        return _with_settings(setting.func.__name__, {name: value for name, value in setting.keywords.items() if value})
    if not is_dataclass(setting):
        return str(setting.__name__)
    differing = {
        field.name: value
        for field in fields(setting)
        if field.name not in ("scale", "classifier") and (value := getattr(setting, field.name)) != field.default
    }
    return _with_settings(type(setting).__name__, differing)


def _with_settings(name: str, settings: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value}' for key, value in settings.items())})" if settings else name
