import csv
import json
import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from guided_diffusion.evaluation.results import (
    COLUMNS,
    INCEPTION_COLUMNS,
    POINT_COLUMNS,
    PointPictures,
    Results,
    describe_setting,
    read,
    save,
    write_csv,
)
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance
from guided_diffusion.samplers import ddim, heun

JOBS = [{"p": "0.1", "file": "a, b"}, {"p": "0.2", "file": ""}]


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


def assert_equal(one, other):
    """Results have the same values to the bit; nan equals nan."""
    assert dict(one.about) == dict(other.about)
    for row, expected in zip(one.rows, other.rows, strict=True):
        assert repr(replace(row, pictures=None, columns=())) == repr(replace(expected, pictures=None, columns=()))
        assert list(row.columns) == list(expected.columns)
        assert type(row.pictures) is type(expected.pictures)
        for array, original in zip(row.pictures, expected.pictures, strict=True):
            np.testing.assert_array_equal(array, original, strict=True)


def of_points(results):
    """The same results as if they were of points in the plane."""
    floors = {name.removesuffix("_floor"): 1 / 3 for name in POINT_COLUMNS if name.endswith("_floor")}
    interval = results.rows[0].measured["accuracy"]
    rows = [
        replace(
            row,
            measured=dict.fromkeys([*floors, "saturation"], interval),
            floors=floors,
            pictures=PointPictures(np.zeros((3, 5, 2), np.float32), np.ones((3, 4, 4), np.float32)),
            kind="points",
            columns=POINT_COLUMNS,
        )
        for row in results.rows
    ]
    return Results(rows, {**results.about, "kind": "points"})


@pytest.mark.parametrize("case", [{}, {"jobs": JOBS, "channels": 3}, {"nan": True}], ids=["plain", "sweep", "nan"])
def test_results_are_read_as_they_were_saved(case, fabricate, tmp_path):
    results = fabricate(**case)
    save(results, tmp_path)
    assert_equal(read(tmp_path), results)


def test_results_of_before_labels_were_recorded_can_be_read(fabricate, tmp_path):
    """Their labels cycled through the classes."""
    results = fabricate()
    save(results, tmp_path)
    with np.load(tmp_path / "pictures.npz") as arrays:
        kept = {name: arrays[name] for name in arrays if not name.endswith(".labels")}
    np.savez(tmp_path / "pictures.npz", **kept)
    content = json.loads((tmp_path / "results.json").read_text())
    for row in content["rows"]:
        row.pop("labels")
        row["columns"].remove("labels")
    (tmp_path / "results.json").write_text(json.dumps(content))
    for row in read(tmp_path).rows:
        assert row.labels == ""
        assert "labels" not in row.row
        assert row.pictures.labels.tolist() == [0, 1, 2] * 4


def test_results_of_points_are_read_as_they_were_saved(fabricate, tmp_path):
    results = of_points(fabricate())
    save(results, tmp_path)
    found = read(tmp_path)
    assert_equal(found, results)
    assert found.kind == found.rows[0].kind == "points"
    assert list(table(tmp_path / "results.csv")[0]) == list(POINT_COLUMNS)


def test_the_tables_are_exports_with_six_digits(fabricate, tmp_path):
    results = fabricate(scales=[1.0], jobs=JOBS)
    save(results, tmp_path)
    rows = table(tmp_path / "results.csv")
    assert list(rows[0]) == [*COLUMNS, "p", "file"]
    assert [(row["scale_minus_one"], row["accuracy"], row["fld_floor"]) for row in rows] == [
        ("0", "0.666667", "0.125"),
        ("0", "0.5", "0.125"),
    ]
    assert [row["file"] for row in rows] == ["a, b", ""]
    key = {"method": "cfg", "scale": "1", "sampler": "ddim", "steps": "25", "p": "0.1", "file": "a, b"}
    intervals, classes = table(tmp_path / "intervals.csv"), table(tmp_path / "per_class.csv")
    assert intervals[0] == key | {"measure": "accuracy", "value": "0.666667", "low": "0.616667", "high": "0.686667"}
    assert classes[1] == key | {"class": "1", "class_name": "class <1>", "count": "4", "f1": "0.666667"}
    (tmp_path / "results.csv").unlink()
    assert_equal(read(tmp_path), results)


def test_a_folder_of_an_earlier_version_is_refused(fabricate, tmp_path):
    save(fabricate(), tmp_path)
    (tmp_path / "results.json").rename(tmp_path / "about.json")
    with pytest.raises(ValueError, match=r"holds no evaluation of this version .* evaluate again"):
        read(tmp_path)


def test_pictures_of_an_earlier_version_are_refused(fabricate, tmp_path):
    save(fabricate(), tmp_path)
    np.savez(tmp_path / "pictures.npz", **{"0.strip": np.zeros(3)})
    with pytest.raises(ValueError, match="evaluate again"):
        read(tmp_path)


def test_values_have_full_precision(fabricate, tmp_path):
    results = fabricate()
    save(results, tmp_path)
    (first, *_) = json.loads((tmp_path / "results.json").read_text())["rows"]
    assert first["measured"]["accuracy"] == list(results.rows[0].measured["accuracy"])


def test_a_table_has_a_column_for_every_key(tmp_path):
    write_csv(tmp_path / "table.csv", [{"a": 1 / 3}, {"b": math.nan, "a": 2}])
    assert (tmp_path / "table.csv").read_text() == "a,b\n0.333333,\n2,nan\n"


@pytest.mark.parametrize(
    ("setting", "description"),
    [
        (ClassifierFree(3.0), "ClassifierFree"),
        (ClassifierGuidance(scale=2.0, base="conditional"), "ClassifierGuidance(base=conditional)"),
        (heun, "heun"),
        (partial(ddim, eta=0.5), "ddim(eta=0.5)"),
        (partial(ddim, eta=0.0), "ddim"),
    ],
)
def test_a_setting_is_described_by_what_differs_from_its_defaults(setting, description):
    assert describe_setting(setting) == description


def test_inception_adds_columns_with_the_split_the_number_and_the_weights(fabricate, with_inception, tmp_path):
    results = fabricate(scales=(0.0, 2.0))
    save(replace(results, rows=[with_inception(row) for row in results.rows]), tmp_path)
    with (tmp_path / "results.csv").open() as file:
        row = list(csv.DictReader(file))[1]
    assert list(row) == [*COLUMNS, *INCEPTION_COLUMNS]
    shown = ("num_samples", "inception_fid", "inception_fid_floor", "inception_kid_high", "inception_network")
    assert [row[name] for name in shown] == ["12", "12", "2.5", "0.03", "published"]
    assert [row[name] for name in ("reference_split", "reference_samples", "weights")] == ["test", "10000", "ema"]
    assert [one.row for one in read(tmp_path).rows][1]["reference_samples"] == 10_000


def test_results_from_before_inception_can_be_read(fabricate, tmp_path):
    save(fabricate(), tmp_path)
    content = json.loads((tmp_path / "results.json").read_text())
    for row in content["rows"]:
        del row["weights"], row["facts"]
    (tmp_path / "results.json").write_text(json.dumps(content))
    assert [list(row.row) for row in read(tmp_path).rows] == [list(COLUMNS)] * 3
