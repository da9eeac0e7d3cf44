import csv
import json
import subprocess
import sys
from fnmatch import fnmatch
from types import SimpleNamespace

import pytest
import wandb
from pytorch_lightning.loggers import WandbLogger

from guided_diffusion import loggers
from guided_diffusion.train import train


def records(run, kind):
    """What W&B has recorded in the folder of an offline run, read back with its own tool."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(run)]
    read = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if read.returncode:
        pytest.skip("this version of wandb can't read an offline run back")
    return [record[kind] for record in map(json.loads, read.stdout.splitlines()) if record["type"] == kind]


@pytest.fixture
def started(monkeypatch):
    """The arguments with which a run would have been started."""
    calls = []

    class Logger(WandbLogger):
        experiment = SimpleNamespace(define_metric=lambda *_, **__: None)

        def __init__(self, **arguments):
            calls.append(arguments)

    monkeypatch.setattr(loggers, "WandbLogger", Logger)
    return calls


@pytest.mark.parametrize(
    ("mode", "variable", "key", "expected"),
    [
        (None, None, None, "offline"),
        (None, None, "secret", "online"),
        (None, "offline", "secret", "offline"),
        ("disabled", "offline", "secret", "disabled"),
        ("online", None, None, "online"),
    ],
)
def test_it_needs_no_account(mode, variable, key, expected, started, monkeypatch):
    monkeypatch.setattr(type(wandb.api), "api_key", key)
    monkeypatch.delenv("WANDB_MODE")
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    loggers.wandb_logger("here", "name", "project", mode)
    assert started[0]["mode"] == expected


@pytest.fixture(scope="module")
def recorded(compose, tiny, tmp_path_factory):
    """The folder of a training, and that of its W&B run."""
    folder = tmp_path_factory.mktemp("recorded")
    train(compose(*tiny, "logger=wandb", "name=recorded", output_dir=folder))
    (run,) = (folder / "wandb").glob("offline-run-*")
    return folder, run


def test_a_run_without_an_account_is_recorded_in_its_folder_and_finished(recorded):
    _, run = recorded
    assert wandb.run is None  # or the next job of a sweep would go on with this run
    assert [record.get("exit_code", 0) for record in records(run, "exit")] == [0]


def test_accuracy_is_drawn_against_the_scale(recorded):
    _, run = recorded
    axes = [
        metric.get("step_metric")
        for metric in records(run, "metric")
        if fnmatch("guidance/accuracy", metric.get("name") or metric["glob_name"])
    ]
    assert "guidance/scale" in axes
    points = [record["item"] for record in records(run, "history") if "guidance/accuracy" in record["item"]]
    assert [point["guidance/scale"] for point in points] == [0, 1, 3]
    assert all(0 <= point["guidance/accuracy"] <= 1 for point in points)


def test_metrics_and_pictures_are_recorded(recorded):
    _, run = recorded
    names = {name for record in records(run, "history") for name in record["item"]}
    assert {"train/loss", "val/loss", "trainer/global_step"} <= names
    pictures = {path.parent.name + "/" + path.name.split("_")[0] for path in (run / "files" / "media").rglob("*.png")}
    assert pictures == {"samples/grid", "guidance/accuracy"}


def test_the_table_is_written_as_well(recorded):
    folder, _ = recorded
    with (folder / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["val/loss"] for row in rows)
    assert any(row["guidance/accuracy_w3"] for row in rows)


def test_a_training_that_fails_is_recorded_as_failed(compose, tiny, tmp_path):
    (tmp_path / "judge.pt").write_text("no judge")
    with pytest.raises(ValueError, match="holds no judge"):
        train(compose(*tiny, "logger=wandb", f"judge.checkpoint={tmp_path / 'judge.pt'}", output_dir=tmp_path))
    assert wandb.run is None
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert [record["exit_code"] for record in records(run, "exit")] == [1]
