import csv
from pathlib import Path

import pytest
import wandb
from omegaconf import OmegaConf
from pytorch_lightning.loggers import WandbLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from guided_diffusion.cli.train import train
from guided_diffusion.training.loggers import wandb_logger

SWEEP = Path(__file__).parents[3] / "docs" / "wandb_sweep.yaml"


@pytest.fixture
def started(monkeypatch):
    """The arguments of the loggers that were made."""
    calls = []

    class Logger(WandbLogger):
        def __init__(self, **arguments):
            calls.append(arguments)
            super().__init__(**arguments)

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
def test_a_run_without_an_account_is_offline(mode, variable, key, expected, started, monkeypatch):
    monkeypatch.setattr(type(wandb.api), "api_key", key)
    monkeypatch.delenv("WANDB_MODE")
    if variable:
        monkeypatch.setenv("WANDB_MODE", variable)
    wandb_logger("here", "name", "project", mode)
    assert started[0]["mode"] == expected


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
