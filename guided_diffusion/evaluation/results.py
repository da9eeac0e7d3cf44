"""What an evaluation found: the table, the intervals, the classes and the pictures, as files and back.

results.csv      a row for every method and scale
intervals.csv    value, low and high of everything measured, in rows
per_class.csv    a row for every method, scale and class
pictures.npz     arrays of each row of results.csv, by its number
about.json       what holds for the whole evaluation: judge, ceiling, class names
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guided_diffusion.utils.files import atomic_write


def describe_setting(setting: Any) -> str:
    """``ClassifierGuidance(base=conditional)``: a setting's class and what differs from its defaults.

    The scale and the classifier are left out: the one is on the axis, the other the same for all.
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


def _with_settings(name: str, settings: dict[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value}' for key, value in settings.items())})" if settings else name


COLUMNS = (
    "method",
    "scale",
    "scale_minus_one",
    "sampler",
    "steps",
    "num_samples",
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "precision",
    "recall",
    "f1",
    "fld",
    "fld_floor",
    "kid",
    "improved_precision",
    "improved_recall",
    "density",
    "coverage",
    "diversity",
    "saturation",
    "nearest",
    "nfe",
    "seconds",
)
"""Of results.csv for images. Columns for what a sweep varied follow."""


POINT_COLUMNS = (
    "method",
    "scale",
    "scale_minus_one",
    "sampler",
    "steps",
    "num_samples",
    "distance_mean",
    "distance_mean_floor",
    "distance_p95",
    "distance_p95_floor",
    "off_curve",
    "off_curve_low",
    "off_curve_high",
    "off_curve_floor",
    "own_pattern",
    "own_pattern_floor",
    "sliced_wasserstein",
    "sliced_wasserstein_floor",
    "mmd",
    "mmd_floor",
    "total_variation",
    "total_variation_floor",
    "kl",
    "kl_floor",
    "saturation",
    "nfe",
    "seconds",
)
"""Of results.csv for points in the plane. A floor is what as many true points have."""


KEY = ("method", "scale", "sampler", "steps")


class Interval(NamedTuple):
    """A figure with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Pictures(NamedTuple):
    """Samples to look at, in [-1, 1], and what the judge says of each."""

    strip: NDArray[np.float32]
    """The first samples, shape (k, c, h, w): of the same noise and labels in every row of one evaluation."""
    means: NDArray[np.float32]
    """The mean image of each class, shape (classes, c, h, w)."""
    uncertain: NDArray[np.float32]
    """Samples whose label the judge thinks least likely, shape (m, c, h, w)."""
    uncertain_labels: NDArray[np.int64]
    uncertain_predictions: NDArray[np.int64]
    uncertain_probabilities: NDArray[np.float32]
    """That the judge gives to the label."""
    confusion: NDArray[np.int64]
    """Shape (classes, classes): rows are labels, columns what the judge sees."""
    predictions: NDArray[np.int64]
    """What the judge sees in every sample, shape (num_samples,); labels go round the classes."""
    probabilities: NDArray[np.float32]
    """That the judge gives to the label of every sample, shape (num_samples,)."""


class PointPictures(NamedTuple):
    """Points to look at, and what they are seen on."""

    points: NDArray[np.float32]
    """The first samples of each class, shape (classes, k, 2): of the same noise in every row of one evaluation."""
    densities: NDArray[np.float32]
    """Of each class on a grid, 1 where it is densest, shape (classes, cells, cells)."""


@dataclass(frozen=True)
class Kind:
    """What an evaluation of one kind of data leaves."""

    columns: tuple[str, ...]
    """Of results.csv."""
    pictures: Callable[..., Any]
    """The class of its pictures, a named tuple of arrays."""
    picture_fields: tuple[str, ...]


KINDS = {
    "images": Kind(COLUMNS, Pictures, Pictures._fields),
    "points": Kind(POINT_COLUMNS, PointPictures, PointPictures._fields),
}


@dataclass(frozen=True)
class Result:
    """One method at one scale."""

    method: str
    scale: float
    sampler: str
    steps: int
    num_samples: int
    measured: Mapping[str, Interval]
    """By the name of the column."""
    floors: Mapping[str, float]
    """What real data would reach, by the name of the column; nan where that can't be said."""
    nfe: float
    """Evaluations of the network per sample."""
    seconds: float
    per_class: Sequence[Mapping[str, Any]]
    """For each class: ``class``, ``class_name``, ``count`` and measures of it."""
    pictures: Any
    """``Pictures`` of images, ``PointPictures`` of points."""
    options: Mapping[str, str] = field(default_factory=dict)
    """What distinguishes the job of a sweep that this comes from."""
    kind: str = "images"
    """Of the data, a name in ``KINDS``."""

    @property
    def row(self) -> dict[str, Any]:
        """Of results.csv."""
        values = {
            **{name: interval.value for name, interval in self.measured.items()},
            **{f"{name}_low": interval.low for name, interval in self.measured.items()},
            **{f"{name}_high": interval.high for name, interval in self.measured.items()},
            **{f"{name}_floor": value for name, value in self.floors.items()},
            "method": self.method,
            "scale": self.scale,
            "scale_minus_one": self.scale - 1,
            "sampler": self.sampler,
            "steps": self.steps,
            "num_samples": self.num_samples,
            "nfe": self.nfe,
            "seconds": self.seconds,
        }
        return {name: values[name] for name in KINDS[self.kind].columns} | dict(self.options)


@dataclass(frozen=True)
class Results:
    """All rows of an evaluation, or of a sweep of evaluations."""

    rows: Sequence[Result]
    about: Mapping[str, Any]
    """``judge`` (name of its network), ``judge_ceiling``, ``data``, ``class_names``, ``checkpoint``, ``weights``,
    ``seed``; in a sweep also ``failed``, the jobs that left nothing. Points have no judge."""

    @property
    def kind(self) -> str:
        """Of the data."""
        return self.about.get("kind", "images")


def save(results: Results, folder: Path) -> None:
    """Write the files of the module's docstring."""
    write_csv(folder / "results.csv", [result.row for result in results.rows])
    write_csv(
        folder / "intervals.csv",
        [
            _key(result) | {"measure": name} | interval._asdict()
            for result in results.rows
            for name, interval in result.measured.items()
        ],
    )
    write_csv(
        folder / "per_class.csv",
        [_key(result) | dict(of_class) for result in results.rows for of_class in result.per_class],
    )
    arrays = {
        f"{index}.{name}": array
        for index, result in enumerate(results.rows)
        for name, array in result.pictures._asdict().items()
    }
    with atomic_write(folder / "pictures.npz") as path:
        np.savez_compressed(path, **arrays)
    with atomic_write(folder / "about.json") as path:
        path.write_text(json.dumps(dict(results.about), indent=2) + "\n")


def read(folder: Path) -> Results:
    """What ``save`` wrote.

    Raises:
        FileNotFoundError: if the folder holds no evaluation.
        ValueError: if it holds one of an earlier version, with other pictures.
    """
    table = _read_csv(folder / "results.csv")
    intervals, per_class = _read_csv(folder / "intervals.csv"), _read_csv(folder / "per_class.csv")
    about = json.loads((folder / "about.json").read_text())
    kind = KINDS[about.get("kind", "images")]
    with np.load(folder / "pictures.npz") as arrays:
        missing = {f"0.{name}" for name in kind.picture_fields} - set(arrays)
        if missing:
            raise ValueError(f"{folder} was written by an earlier version: evaluate again")
        pictures = [
            kind.pictures(*(arrays[f"{index}.{name}"] for name in kind.picture_fields)) for index in range(len(table))
        ]
    rows = []
    for row, picture in zip(table, pictures, strict=True):
        options = {name: value for name, value in row.items() if name not in kind.columns}
        key = {name: row[name] for name in (*KEY, *options)}
        rows.append(
            Result(
                row["method"],
                float(row["scale"]),
                row["sampler"],
                int(row["steps"]),
                int(row["num_samples"]),
                {
                    one["measure"]: Interval(*(float(one[name]) for name in Interval._fields))
                    for one in intervals
                    if key.items() <= one.items()
                },
                {name.removesuffix("_floor"): float(row[name]) for name in kind.columns if name.endswith("_floor")},
                float(row["nfe"]),
                float(row["seconds"]),
                [
                    {name: value for name, value in one.items() if name not in key}
                    for one in per_class
                    if key.items() <= one.items()
                ],
                picture,
                options,
                about.get("kind", "images"),
            )
        )
    return Results(rows, about)


def _key(result: Result) -> dict[str, Any]:
    return {name: getattr(result, name) for name in KEY} | dict(result.options)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """A table with a column for every key that any row has."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows({name: _shown(value) for name, value in row.items()} for row in rows)


def _shown(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
