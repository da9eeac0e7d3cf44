import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
from omegaconf import OmegaConf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from guided_diffusion.cli.train import train
from guided_diffusion.training.loggers import wandb_logger
from guided_diffusion.training.loggers.wandb import OneRunLogger
from guided_diffusion.training.modules import DiffusionModule

SWEEP = Path(__file__).parents[3] / "docs" / "wandb_sweep.yaml"


@pytest.fixture
def started(monkeypatch):
    """The arguments of the loggers that were made."""
    calls = []

    class Logger(OneRunLogger):
        def __init__(self, **arguments):
            calls.append(arguments)
            super().__init__(**arguments)

    monkeypatch.setattr("guided_diffusion.training.loggers.wandb.OneRunLogger", Logger)
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
def test_a_run_without_an_account_is_offline(mode, variable, key, expected, started, monkeypatch):
    monkeypatch.setattr(type(wandb.api), "api_key", key)
    monkeypatch.delenv("WANDB_MODE")
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    wandb_logger("here", "name", "project", mode)
    assert started[0]["mode"] == expected


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("project=a/b", "logger.wandb: Invalid project name 'a/b': cannot contain"),
        pytest.param(
            "mode=foo",
            "logger.wandb.mode must be one of online, offline, disabled or null, got 'foo'",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_setting_that_wandb_refuses_is_refused_first(setting, message, compose, tiny, tmp_path):
    with pytest.raises(ValueError, match=re.escape(message)):
        train(compose(*tiny, "logger=wandb", f"logger.wandb.{setting}", output_dir=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_group_job_type_and_tags_can_be_chosen(started, tmp_path):
    wandb_logger(str(tmp_path), "run", "project", "offline", "mine", "probe", ["a", "b"])
    (arguments,) = started
    assert (arguments["group"], arguments["job_type"], arguments["tags"]) == ("mine", "probe", ["a", "b"])


def test_outside_a_program_the_only_tag_is_the_name(started, tmp_path):
    wandb_logger(str(tmp_path), "run", "project", "offline")
    (arguments,) = started
    assert (arguments["group"], arguments["job_type"], arguments["tags"]) == (None, None, ["run"])


@pytest.mark.slow
def test_the_runs_of_a_sweep_share_a_group(call, tiny, started, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    short = [*tiny, "callbacks=minimal", "trainer.max_steps=1", "logger=wandb", "name=swept"]
    short = [override for override in short if not override.startswith("callbacks.accuracy")]
    assert call("train", "--multirun", *short, "label_dropout=0.1,0.5").status == 0
    (sweep,) = (tmp_path / "outputs" / "swept").iterdir()
    assert len({arguments["save_dir"] for arguments in started}) == 2
    for arguments in started:
        assert (arguments["group"], arguments["job_type"]) == (sweep.name, "train")
        assert arguments["tags"] == ["swept", "cfg", "fake"]


@pytest.fixture
def exit_codes(monkeypatch):
    """The status with which each W&B run ended."""
    codes, finish = [], wandb.Run.finish

    def noted(run, exit_code=None, **settings):
        codes.append(exit_code)
        finish(run, exit_code, **settings)

    monkeypatch.setattr(wandb.Run, "finish", noted)
    return codes


@pytest.mark.slow
def test_wandb_tensorboard_and_the_table_follow_a_training_together(compose, tiny, exit_codes, tmp_path):
    train(compose(*tiny, "logger=[wandb,tensorboard]", output_dir=tmp_path))
    assert exit_codes == [0]
    assert wandb.run is None  # or the next job of a sweep would continue this run
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    images = {f"{path.parent.name}/{path.name.split('_')[0]}" for path in (run / "files" / "media").rglob("*.png")}
    assert images == {"samples/grid", "guidance/accuracy"}
    tags = EventAccumulator(str(tmp_path / "tensorboard"), {"images": 0, "scalars": 0}).Reload().Tags()
    assert {"train/loss", "val/loss", "guidance/accuracy_w3"} <= set(tags["scalars"])
    assert {"samples/grid", "guidance/accuracy_by_scale"} <= set(tags["images"])
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert any(row["val/loss"] for row in rows)
    assert any(row["guidance/accuracy_w3"] for row in rows)


@pytest.mark.slow
def test_a_training_that_fails_is_recorded_as_failed(compose, tiny, exit_codes, tmp_path):
    with pytest.raises(ValueError, match=r"at step 2, .* lower module\.optimizer\.lr"):
        train(compose(*tiny, "logger=wandb", "module.optimizer.lr=1e30", output_dir=tmp_path))
    assert exit_codes == [1]
    assert wandb.run is None


@pytest.mark.parametrize(
    ("choice", "names"), [("[wandb,tensorboard]", {"csv", "wandb", "tensorboard"}), ("wandb", {"csv", "wandb"})]
)
def test_every_choice_of_loggers_has_the_table(choice, names, compose):
    assert set(compose(f"logger={choice}").logger) == names


@pytest.mark.skipif(not SWEEP.exists(), reason="the documents are not here")
def test_the_sweep_in_the_docs_sets_options_that_training_has(compose):
    sweep = OmegaConf.load(SWEEP)
    values = {name: parameter["values"][-1] for name, parameter in sweep.parameters.items()}
    config = compose(*(f"{name}={value}" for name, value in values.items()))
    assert (config.guidance.scale, config.label_dropout) == (5, 0.2)


@pytest.fixture
def interrupted(compose, tiny, monkeypatch, tmp_path):
    """The folder of a training that was killed in step 4, with its last checkpoint after step 2, and continued."""
    options = [
        *tiny,
        "logger=[wandb,tensorboard]",
        "callbacks.last.every_n_steps=2",
        "callbacks.sample_grid.every_n_steps=2",
    ]
    step = DiffusionModule.training_step

    def dying(self, batch, batch_idx):
        if self.global_step == 3:
            raise RuntimeError("killed")
        return step(self, batch, batch_idx)

    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModule, "training_step", dying)
        with pytest.raises(RuntimeError, match="killed"):
            train(compose(*options, output_dir=tmp_path))
    train(compose(*options, f"resume={tmp_path}", output_dir=tmp_path))
    return tmp_path


def records(folder):
    """The ids of the W&B runs in a folder, and the history of all, in order of time."""
    ids, rows = [], []
    for run in sorted((folder / "wandb").glob("offline-run-*")):
        shown = subprocess.run(
            [Path(sys.executable).parent / "wandb", "leet", "inspect", "--json", run],
            capture_output=True,
            text=True,
            check=True,
        )
        for record in map(json.loads, shown.stdout.splitlines()):
            if record["type"] == "run":
                ids.append(record["run"]["run_id"])
            elif record["type"] == "history":
                rows.append(record["history"]["item"])
    return ids, rows


@pytest.mark.slow
def test_an_interrupted_training_is_one_run_with_each_step_once(interrupted, compose, tiny):
    ids, rows = records(interrupted)
    assert len(ids) == 2
    assert len(set(ids)) == 1
    losses = [row["trainer/global_step"] for row in rows if "train/loss" in row]
    assert losses == [0, 1, 2, 3]
    assert [row["trainer/global_step"] for row in rows if "val/loss" in row] == [1, 3]
    drawn = [row["trainer/global_step"] for row in rows if any(key.startswith("samples/grid") for key in row)]
    assert drawn == [1, 4], rows
    assert [row["guidance/scale"] for row in rows if "guidance/accuracy" in row] == [0, 1, 3]
    steps = [row["_step"] for row in rows]
    assert steps == sorted(set(steps))  # W&B would drop a row with an earlier step

    events = EventAccumulator(str(interrupted / "tensorboard"), {"images": 0, "scalars": 0, "tensors": 0}).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2, 3]
    assert [event.step for event in events.Scalars("train/learning_rate")] == [0, 1, 2, 3]
    assert [event.step for event in events.Scalars("val/loss")] == [1, 3]
    assert [event.step for event in events.Scalars("guidance/accuracy_w3")] == [4]
    assert [event.step for event in events.Images("samples/grid")] == [1, 4]

    train(compose(*tiny, "logger=[wandb,tensorboard]", "seed=1", output_dir=interrupted))
    new_ids, _ = records(interrupted)
    assert len(set(new_ids)) == 2
    events = EventAccumulator(str(interrupted / "tensorboard"), {"images": 0, "scalars": 0}).Reload()
    assert [event.step for event in events.Scalars("train/loss")] == [0, 1, 2, 3]
    assert [event.step for event in events.Images("samples/grid")] == [4]


class Run:
    """A W&B run whose own count of rows begins anew with each process, as it does offline."""

    def __init__(self):
        self.rows = []

    @property
    def step(self):
        return len(self.rows)

    def log(self, values, step=None, commit=None):
        self.rows.append((step, values))


@pytest.fixture
def process(tmp_path):
    """Begin a process that logs to a run of this folder; return the run and the logger."""

    def begun(is_new):
        run = Run()
        logger = OneRunLogger(save_dir=str(tmp_path), experiment=run)
        logger.begin(is_new)
        return run, logger

    return begun


def id_of(folder):
    return json.loads((folder / "wandb_run.json").read_text())["id"]


def test_what_was_logged_before_an_interruption_is_not_logged_again(process):
    _, first = process(is_new=True)
    for step in (0, 1, 2):
        first.log_metrics({"train/loss": 1.0}, step)
    first.log_metrics({"val/loss": 1.0}, 1)
    first.log_metrics({"train/loss": 1.0}, 2)
    run, second = process(is_new=False)
    assert run.rows == [(5, {"trainer/global_step": 2})]
    for step in (1, 2, 3):
        second.log_metrics({"train/loss": 1.0}, step)
        second.log_metrics({"val/loss": 1.0}, step)
    logged = [(values["trainer/global_step"], *(key for key in values if "loss" in key)) for _, values in run.rows[1:]]
    assert logged == [(2, "val/loss"), (3, "train/loss"), (3, "val/loss")]


def test_a_run_keeps_its_id_until_a_new_training_begins_in_its_folder(process, tmp_path):
    process(is_new=True)
    first = id_of(tmp_path)
    process(is_new=False)
    assert id_of(tmp_path) == first
    run, _ = process(is_new=True)
    assert id_of(tmp_path) != first
    assert run.rows == []


def test_the_id_that_an_agent_of_a_sweep_sets_is_taken(process, tmp_path, monkeypatch):
    process(is_new=True)
    monkeypatch.setenv("WANDB_RUN_ID", "of-agent")
    run, logger = process(is_new=False)
    assert id_of(tmp_path) == "of-agent"
    logger.log_metrics({"train/loss": 1.0}, 0)
    assert len(run.rows) == 1
