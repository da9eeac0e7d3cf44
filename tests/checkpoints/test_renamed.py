import copy
import shutil

import pytest
import torch
from hydra.utils import get_object
from omegaconf import OmegaConf

from guided_diffusion.checkpoints.files import export, read_model_file
from guided_diffusion.checkpoints.loading import load
from guided_diffusion.checkpoints.renamed import update_targets
from guided_diffusion.training.resume.find_run import clear_inherited_start, find_start

EARLIER = [
    *(
        f"guided_diffusion.callbacks.{name}"
        for name in (
            *("EMA", "LastCheckpoint", "StopWhereNotFinite", "ImagesPerSecond", "StepProgress", "AccuracyByNoise"),
            *("SampleGrid", "AccuracyByScale", "ScatterGrid", "DistanceByScale"),
        )
    ),
    "guided_diffusion.modules.DiffusionModule",
    "guided_diffusion.modules.ClassifierModule",
    "guided_diffusion.sampling.Recipe",
    "guided_diffusion.metrics.JudgeSource",
    "guided_diffusion.metrics.JudgePair",
    "guided_diffusion.loggers.CSVLogger",
    "guided_diffusion.loggers.tensorboard_logger",
    "guided_diffusion.loggers.wandb_logger",
    "guided_diffusion.strategies.fsdp",
    "guided_diffusion.strategies.deepspeed",
    "guided_diffusion.programs.NoteNewFolders",
    "guided_diffusion.sweeps.GatherResults",
    "guided_diffusion.targets.PoweredMixture",
]
"""The targets of the first configs of this package that have other names today."""


@pytest.mark.parametrize("target", EARLIER)
def test_every_earlier_name_leads_to_an_object_of_today(target):
    present = update_targets({"_target_": target})["_target_"]
    assert present != target
    assert get_object(present).__module__.startswith("guided_diffusion.")


def test_settings_that_a_dataset_did_not_have_at_first_are_what_they_were_then(compose):
    data = OmegaConf.to_container(compose().data, resolve=True)
    earlier = {key: value for key, value in data.items() if key not in ("balance", "num_workers")}
    assert update_targets({"data": earlier}) == {"data": data}
    assert update_targets({"data": earlier | {"balance": True}})["data"]["balance"] is True


def test_names_are_updated_at_any_depth_and_nothing_else_is_changed():
    node = {"_target_": "guided_diffusion.sampling.Recipe", "parts": [{"_target_": "guided_diffusion.callbacks.EMA"}]}
    other = {
        "_target_": "guided_diffusion.samplers.Sampler",
        "own": {"_target_": "guided_diffusion.modules_of_mine.Module"},
        "text": "guided_diffusion.callbacks.EMA",
        "numbers": [1, 2.5, None],
    }
    before = copy.deepcopy(node)
    assert update_targets({"a": node, "b": other}) == {
        "a": {
            "_target_": "guided_diffusion.recipe.Recipe",
            "parts": [{"_target_": "guided_diffusion.training.callbacks.EMA"}],
        },
        "b": other,
    }
    assert node == before


def with_earlier_names(config):
    """The config as it was written before the classes were renamed."""
    config = copy.deepcopy(config)
    config["module"]["_target_"] = "guided_diffusion.modules.DiffusionModule"
    config["recipe"]["_target_"] = "guided_diffusion.sampling.Recipe"
    config["judge"]["_target_"] = "guided_diffusion.metrics.JudgeSource"
    config["logger"]["csv"]["_target_"] = "guided_diffusion.loggers.CSVLogger"
    names = {"ema": "EMA", "last": "LastCheckpoint", "finite": "StopWhereNotFinite", "throughput": "ImagesPerSecond"}
    for key, name in names.items():
        config["callbacks"][key]["_target_"] = f"guided_diffusion.callbacks.{name}"
    return config


@pytest.fixture
def earlier_checkpoint(with_record):
    """A checkpoint whose record has the earlier names."""
    return with_record(lambda record: record.update(config=with_earlier_names(record["config"])))


def test_a_checkpoint_with_earlier_names_is_loaded_as_if_it_had_todays(earlier_checkpoint, checkpoint, flatten):
    model, expected = load(earlier_checkpoint), load(checkpoint)
    assert model.config == expected.config
    assert torch.equal(flatten(model.denoiser.state_dict()), flatten(expected.denoiser.state_dict()))


def test_an_exported_model_has_todays_names(earlier_checkpoint, checkpoint, tmp_path):
    export(earlier_checkpoint, tmp_path / "model.safetensors")
    exported = read_model_file(tmp_path / "model.safetensors")["guided_diffusion"]["config"]
    assert exported == read_model_file(checkpoint)["guided_diffusion"]["config"]


@pytest.mark.parametrize("resume", ["auto", "path"])
def test_a_run_that_was_interrupted_before_the_renaming_is_resumed(resume, earlier_checkpoint, run_dir, tmp_path):
    config = OmegaConf.to_container(OmegaConf.load(run_dir / "config.yaml"))
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    shutil.copy(earlier_checkpoint, run / "checkpoints" / "last.ckpt")
    OmegaConf.save(OmegaConf.create(with_earlier_names(config)), run / "config.yaml")
    try:
        start = find_start(config | {"resume": resume if resume == "auto" else str(run)}, tmp_path / "new", [run])
    finally:
        clear_inherited_start()
    assert (start.folder, start.checkpoint) == (run, run / "checkpoints" / "last.ckpt")
    assert start.step == 4
