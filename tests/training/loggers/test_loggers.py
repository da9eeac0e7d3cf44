import csv
import functools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import wandb
from lightning_fabric.loggers import tensorboard as fabric_tensorboard
from omegaconf import OmegaConf
from pytorch_lightning.loggers import CSVLogger, WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from guided_diffusion.cli.train import train
from guided_diffusion.evaluation.publish import dashboard, log_results
from guided_diffusion.evaluation.publish.csv import PlainDashboard
from guided_diffusion.evaluation.publish.wandb import WandbDashboard
from guided_diffusion.evaluation.results import Interval, Pictures, Result, Results
from guided_diffusion.training.loggers.finish import closing_loggers
from guided_diffusion.training.loggers.tensorboard import tensorboard_logger
from guided_diffusion.training.loggers.wandb import wandb_logger
from guided_diffusion.utils.instantiate import build

SWEEP = Path(__file__).parents[3] / "docs" / "wandb_sweep.yaml"


@pytest.fixture(scope="module", autouse=True)
def _staging(tmp_path_factory):
    """What W&B keeps of an artifact until it is sent lies outside the run's folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_DATA_DIR", str(tmp_path_factory.mktemp("staging")))
        yield


@functools.cache
def inspect(run, *options):
    """What W&B has recorded in the folder of an offline run, read back with its own tool."""
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(run)]
    read = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    if read.returncode:
        pytest.skip("this version of wandb can't read an offline run back")
    return read.stdout


def records(run, kind):
    every = map(json.loads, inspect(run).splitlines())
    return [record[kind] for record in every if record["type"] == kind]


def axes(run):
    """The axis of every metric that has one of its own."""
    return {metric["name"]: metric.get("step_metric") for metric in records(run, "metric") if "name" in metric}


def history(run, key):
    """The points of a curve that W&B would draw."""
    items = [record["item"] for record in records(run, "history")]
    return [(item["guidance/scale"], item[key]) for item in items if key in item]


@pytest.fixture
def started(monkeypatch):
    """The arguments with which a run would have been started."""
    calls = []

    class Logger(WandbLogger):
        def __init__(self, **arguments):
            calls.append(arguments)

    monkeypatch.setattr("guided_diffusion.training.loggers.wandb.WandbLogger", Logger)
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
    wandb_logger("here", "name", "project", mode)
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
    assert axes(run)["guidance/accuracy"] == "guidance/scale"
    points = history(run, "guidance/accuracy")
    assert [scale for scale, _ in points] == [0, 1, 3]
    assert all(0 <= accuracy <= 1 for _, accuracy in points)


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
    with pytest.raises(ValueError, match=r"at step 2, .* lower module\.optimizer\.lr"):
        train(compose(*tiny, "logger=wandb", "module.optimizer.lr=1e30", output_dir=tmp_path))
    assert wandb.run is None
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert [record["exit_code"] for record in records(run, "exit")] == [1]


# Which loggers there are


def test_several_loggers_write_side_by_side(compose):
    assert set(compose("logger=[wandb,tensorboard]").logger) == {"csv", "wandb", "tensorboard"}
    assert set(compose("logger=wandb").logger) == {"csv", "wandb"}


def test_a_logger_of_ones_own_has_the_dashboard_of_its_nearest_class(tmp_path):
    class Own(WandbLogger):
        pass

    assert isinstance(dashboard(Own(save_dir=tmp_path, mode="disabled")), WandbDashboard)
    assert isinstance(dashboard(CSVLogger(tmp_path)), PlainDashboard)


# Where W&B files a run


def test_the_runs_of_a_sweep_share_a_group(call, tiny, tmp_path):
    short = [*tiny, "callbacks=minimal", "trainer.max_steps=1", "logger=wandb", "name=swept"]
    short = [override for override in short if not override.startswith("callbacks.accuracy")]
    assert call("train", "--multirun", *short, "label_dropout=0.1,0.5").status == 0
    (sweep,) = (tmp_path / "outputs" / "swept").iterdir()
    runs = [records(run, "run")[0] for run in sorted(sweep.glob("*/wandb/offline-run-*"))]
    assert len({run["run_id"] for run in runs}) == 2
    for run in runs:
        assert run["run_group"] == sweep.name
        assert run["job_type"] == "train"
        assert set(run["tags"]) == {"swept", "cfg", "fake"}


def test_group_job_type_and_tags_can_be_set(tmp_path):
    with closing_loggers([wandb_logger(str(tmp_path), "run", "project", "offline", "mine", "probe", ["a", "b"])]):
        pass
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    recorded = records(run, "run")[0]
    assert (recorded["run_group"], recorded["job_type"]) == ("mine", "probe")
    assert set(recorded["tags"]) == {"a", "b"}


@pytest.mark.skipif(not SWEEP.exists(), reason="the documents are not here")
def test_the_sweep_of_the_documents_sets_what_training_has(compose):
    sweep = OmegaConf.load(SWEEP)
    values = {name: parameter["values"][-1] for name, parameter in sweep.parameters.items()}
    config = compose(*(f"{name}={value}" for name, value in values.items()))
    assert (config.guidance.scale, config.label_dropout) == (5, 0.2)


# What an evaluation shows

SCALES = (0.0, 1.0, 2.5)
CLASSES = ["circle", "square"]


def result(method, scale):
    names = ("accuracy", "precision", "recall", "f1", "fld", "kid", "improved_precision", "improved_recall", "density")
    value = scale / 10 + (method == "cfg") / 100
    return Result(
        method=method,
        scale=scale,
        sampler="ddim",
        steps=50,
        num_samples=6,
        measured={
            name: Interval(value, value - 0.1, value + 0.1)
            for name in (*names, "coverage", "diversity", "saturation", "nearest")
        },
        floors={"fld": 0.1},
        nfe=100.0,
        seconds=scale + 1,
        per_class=[],
        pictures=Pictures(
            strip=np.zeros((4, 1, 8, 8), np.float32),
            means=np.zeros((2, 1, 8, 8), np.float32),
            uncertain=np.full((2, 1, 8, 8), scale / 10, np.float32),
            uncertain_labels=np.array([0, 1]),
            uncertain_predictions=np.array([1, 1]),
            uncertain_probabilities=np.array([0.125, 0.25], np.float32),
            confusion=np.array([[2, 1], [0, 3]]),
            predictions=np.array([0, 1, 1, 1, 0, 1]),
            probabilities=np.array([0.75, 1, 0.25, 0.875, 1, 0.625], np.float32),
        ),
    )


def results(*methods):
    rows = [result(method, scale) for method in methods for scale in reversed(SCALES)]
    return Results(rows, {"judge_ceiling": 0.99, "class_names": CLASSES, "data": "shapes"})


def evaluated(folder, *methods):
    """The folder of the W&B run of an evaluation."""
    (folder / "report.html").write_text("<p>report")
    (folder / "results.csv").write_text("method,scale")
    loggers = [wandb_logger(str(folder), "evaluation", "project", "offline")]
    with closing_loggers(loggers):
        log_results(loggers, results(*methods), folder)
    (run,) = (folder / "wandb").glob("offline-run-*")
    return run


@pytest.fixture(scope="module")
def one_curve(tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("one_curve"), "cfg")


@pytest.fixture(scope="module")
def two_curves(tmp_path_factory):
    return evaluated(tmp_path_factory.mktemp("two_curves"), "cfg", "classifier")


@pytest.mark.parametrize(("column", "values"), [("accuracy", [0.01, 0.11, 0.26]), ("seconds", [1, 2, 3.5])])
def test_wandb_draws_every_column_against_the_scale(one_curve, column, values):
    points = history(one_curve, f"guidance/{column}")
    assert [scale for scale, _ in points] == list(SCALES)
    assert [value for _, value in points] == pytest.approx(values)
    assert axes(one_curve)[f"guidance/{column}"] == "guidance/scale"


def test_wandb_shows_what_was_measured_nfe_and_pictures(one_curve):
    drawn = {key.partition("/")[2] for key in axes(one_curve) if key.startswith("guidance/")}
    assert drawn == {*result("cfg", 1.0).measured, "nfe", "seconds", "strip", "means", "scale"}


def test_wandb_draws_each_of_several_curves(two_curves):
    first, second = (history(two_curves, f"guidance/accuracy/{method}-ddim-50") for method in ("cfg", "classifier"))
    assert [scale for scale, _ in first] == [scale for scale, _ in second] == list(SCALES)
    assert [value for _, value in second] == pytest.approx([0, 0.1, 0.25])
    assert axes(two_curves)["guidance/accuracy/classifier-ddim-50"] == "guidance/scale"


def test_wandb_has_a_strip_of_every_scale(one_curve):
    strips = history(one_curve, "guidance/strip.path")
    assert [scale for scale, _ in strips] == list(SCALES)
    assert all((one_curve / "files" / path).is_file() for _, path in strips)


def summary(run):
    return json.loads(inspect(run, "--summary"))["summary"]


def table(run, key):
    """Columns and rows of a table, from the file that W&B would send."""
    contents = [content for artifact in records(run, "artifact") for content in artifact["manifest"]["contents"]]
    (path,) = [content["local_path"] for content in contents if content["path"] == f"{key}.table.json"]
    content = json.loads(Path(path).read_text())
    return content["columns"], content["data"]


def test_wandb_has_the_table_of_results(one_curve):
    columns, rows = table(one_curve, "evaluation/results")
    assert tuple(columns) == tuple(result("cfg", 1.0).row)
    assert [row[columns.index("scale")] for row in rows] == list(reversed(SCALES))


def test_wandb_has_the_least_certain_samples(one_curve):
    columns, rows = table(one_curve, "evaluation/uncertain")
    assert columns == ["method", "scale", "image", "label", "prediction", "probability"]
    assert len(rows) == 2 * len(SCALES)
    method, scale, image, *rest = rows[0]
    assert (method, scale, image["_type"], rest) == ("cfg", min(SCALES), "image-file", ["circle", "square", 0.125])


def test_wandb_has_a_confusion_matrix_of_every_scale(one_curve):
    columns, rows = table(one_curve, "confusion/w2_5_table")
    assert columns == ["Actual", "Predicted", "nPredictions"]
    assert {(label, seen): count for label, seen, count in rows} == {
        ("circle", "circle"): 2,
        ("circle", "square"): 1,
        ("square", "circle"): 0,
        ("square", "square"): 3,
    }
    assert {"confusion/w0_table", "confusion/w1_table"} <= set(summary(one_curve))


def test_wandb_has_a_chart_of_all_curves(two_curves):
    columns, rows = table(two_curves, "curves/accuracy_table")
    assert columns == ["step", "lineKey", "lineVal"]
    assert sorted((name, scale) for scale, name, _ in rows) == [
        (f"{method}, ddim, 50 steps", scale) for method in ("cfg", "classifier") for scale in SCALES
    ]
    charts = {key for update in records(two_curves, "config") for key in update["update"]}
    assert {"_wandb.visualize.curves/accuracy", "_wandb.visualize.confusion/classifier-ddim-50/w1"} <= charts


def test_wandb_has_the_report_as_an_artifact(one_curve):
    (artifact,) = [artifact for artifact in records(one_curve, "artifact") if artifact["type"] == "evaluation"]
    contents = artifact["manifest"]["contents"]
    assert {content["path"] for content in contents} == {"report.html", "results.csv"}
    assert all(Path(content["local_path"]).is_file() for content in contents)


def test_wandb_sums_up_and_tags_an_evaluation(two_curves):
    assert summary(two_curves)["evaluation/judge_ceiling"] == 0.99
    assert set(records(two_curves, "run")[-1]["tags"]) >= {"evaluation", "cfg", "classifier"}
    assert [record.get("exit_code", 0) for record in records(two_curves, "exit")] == [0]


def test_wandb_is_told_of_a_failure_in_between(tmp_path):
    loggers = [wandb_logger(str(tmp_path), "failing", "project", "offline")]
    with pytest.raises(KeyError, match="class_names"), closing_loggers(loggers):
        log_results(loggers, Results([result("cfg", 1.0)], {}), tmp_path)
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    assert [record["exit_code"] for record in records(run, "exit")] == [1]
    assert wandb.run is None


def test_a_table_has_a_metric_for_every_scale(tmp_path):
    loggers = [CSVLogger(tmp_path, "", "")]
    with closing_loggers(loggers):
        log_results(loggers, results("cfg"), tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert float(row["guidance/accuracy_w2.5"]) == pytest.approx(0.26)
    assert float(row["guidance/seconds_w0"]) == 1
    assert "guidance/nfe_w1" in row


# TensorBoard


def events(folder):
    return EventAccumulator(str(folder / "tensorboard"), {"images": 0, "scalars": 0}).Reload()


@pytest.mark.parametrize(("methods", "end"), [(["cfg"], ""), (["classifier", "cfg"], "/cfg-ddim-50")])
def test_tensorboard_draws_against_hundredths_of_the_scale(methods, end, tmp_path):
    loggers = [tensorboard_logger(str(tmp_path))]
    with closing_loggers(loggers):
        log_results(loggers, results(*methods), tmp_path)
    read = events(tmp_path)
    points = {event.step: event.value for event in read.Scalars(f"guidance/accuracy{end}")}
    assert points == pytest.approx({0: 0.01, 100: 0.11, 250: 0.26})
    assert [event.step for event in read.Images(f"guidance/strip{end}")] == [0, 100, 250]
    assert {f"guidance/{name}{end}" for name in (*result("cfg", 1.0).measured, "nfe")} <= set(read.Tags()["scalars"])


def test_tensorboard_follows_a_training(compose, tiny, tmp_path):
    train(compose(*tiny, "logger=tensorboard", output_dir=tmp_path))
    read = events(tmp_path)
    assert {"train/loss", "val/loss", "guidance/accuracy_w3"} <= set(read.Tags()["scalars"])
    assert {"samples/grid", "guidance/accuracy_by_scale"} <= set(read.Tags()["images"])
    assert (tmp_path / "metrics.csv").is_file()


def test_without_tensorboard_it_says_what_to_install(compose, tmp_path, monkeypatch):
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(fabric_tensorboard, name, False)
    with pytest.raises(
        ValueError, match=r'logger.tensorboard: .* pip install "guided-diffusion-lightning\[tensorboard\]"'
    ):
        build(compose("logger=tensorboard", output_dir=tmp_path).logger.tensorboard)
