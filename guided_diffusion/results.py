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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from guided_diffusion.files import whole_file

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
"""Of results.csv. Columns for what a sweep varied follow."""

KEY = ("method", "scale", "sampler", "steps")


class Interval(NamedTuple):
    """A figure with its 95 % confidence interval."""

    value: float
    low: float
    high: float


class Pictures(NamedTuple):
    """Samples to look at, in [-1, 1]."""

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
    fld_floor: float
    nfe: float
    """Evaluations of the network per sample."""
    seconds: float
    per_class: Sequence[Mapping[str, Any]]
    """For each class: ``class``, ``class_name``, ``count`` and measures of it."""
    pictures: Pictures
    options: Mapping[str, str] = field(default_factory=dict)
    """What distinguishes the job of a sweep that this comes from."""

    @property
    def row(self) -> dict[str, Any]:
        """Of results.csv."""
        accuracy = self.measured["accuracy"]
        values = {
            **{name: interval.value for name, interval in self.measured.items()},
            "method": self.method,
            "scale": self.scale,
            "scale_minus_one": self.scale - 1,
            "sampler": self.sampler,
            "steps": self.steps,
            "num_samples": self.num_samples,
            "accuracy_low": accuracy.low,
            "accuracy_high": accuracy.high,
            "fld_floor": self.fld_floor,
            "nfe": self.nfe,
            "seconds": self.seconds,
        }
        return {name: values[name] for name in COLUMNS} | dict(self.options)


@dataclass(frozen=True)
class Results:
    """All rows of an evaluation, or of a sweep of evaluations."""

    rows: Sequence[Result]
    about: Mapping[str, Any]
    """``judge`` (name of its network), ``judge_ceiling``, ``data``, ``class_names``, ``checkpoint``, ``weights``,
    ``seed``; in a sweep also ``failed``, the jobs that left nothing."""


def save(results: Results, folder: Path) -> None:
    """Write the files of the module's docstring."""
    _write_csv(folder / "results.csv", [result.row for result in results.rows])
    _write_csv(
        folder / "intervals.csv",
        [
            _key(result) | {"measure": name} | interval._asdict()
            for result in results.rows
            for name, interval in result.measured.items()
        ],
    )
    _write_csv(
        folder / "per_class.csv",
        [_key(result) | dict(of_class) for result in results.rows for of_class in result.per_class],
    )
    arrays = {
        f"{index}.{name}": array
        for index, result in enumerate(results.rows)
        for name, array in result.pictures._asdict().items()
    }
    with whole_file(folder / "pictures.npz") as path:
        np.savez_compressed(path, **arrays)
    with whole_file(folder / "about.json") as path:
        path.write_text(json.dumps(dict(results.about), indent=2) + "\n")


def read(folder: Path) -> Results:
    """What ``save`` wrote.

    Raises:
        FileNotFoundError: if the folder holds no evaluation.
    """
    table = _read_csv(folder / "results.csv")
    intervals, per_class = _read_csv(folder / "intervals.csv"), _read_csv(folder / "per_class.csv")
    with np.load(folder / "pictures.npz") as arrays:
        pictures = [Pictures(*(arrays[f"{index}.{name}"] for name in Pictures._fields)) for index in range(len(table))]
    rows = []
    for row, picture in zip(table, pictures, strict=True):
        options = {name: value for name, value in row.items() if name not in COLUMNS}
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
                float(row["fld_floor"]),
                float(row["nfe"]),
                float(row["seconds"]),
                [
                    {name: value for name, value in one.items() if name not in key}
                    for one in per_class
                    if key.items() <= one.items()
                ],
                picture,
                options,
            )
        )
    return Results(rows, json.loads((folder / "about.json").read_text()))


def _key(result: Result) -> dict[str, Any]:
    return {name: getattr(result, name) for name in KEY} | dict(result.options)


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        table = csv.DictWriter(file, names, lineterminator="\n")
        table.writeheader()
        table.writerows({name: _shown(value) for name, value in row.items()} for row in rows)


def _shown(value: Any) -> Any:
    return f"{value:.6g}" if isinstance(value, float) else value


def _read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))
