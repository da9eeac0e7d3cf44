"""The weaker model of autoguidance: its key in the config, its checkpoint, and the errors about it."""

from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from guided_diffusion.checkpoints.guidance_config import expand_paths, guidance_needs_weak, weak_checkpoint
from guided_diffusion.checkpoints.loading import load, optional_weak_model
from guided_diffusion.checkpoints.record import check_targets
from guided_diffusion.cli.config import SampleConfig, trust_packages
from guided_diffusion.cli.restore import prepare
from guided_diffusion.evaluation.plan import Plan, sampling_fingerprint
from guided_diffusion.guidance import Autoguidance


@pytest.mark.parametrize("key", ["weak", "guidance.weak", "guidance.weak.checkpoint"])
def test_the_weak_model_can_be_given_by_each_of_its_keys(key, compose):
    config = compose("guidance=autoguidance", f"{key}=some.ckpt", "trusted=[my_package]", program="sample")
    expand_paths(config.guidance)
    assert config.guidance.weak == {
        "_target_": "guided_diffusion.checkpoints.optional_weak_model",
        "checkpoint": "some.ckpt",
    }
    assert weak_checkpoint(config.guidance) == "some.ckpt"
    check_targets(OmegaConf.to_container(config.guidance), (), Path("some.ckpt"))
    trust_packages(config)
    assert config.guidance.weak.trusted == ["my_package"]


@pytest.mark.parametrize(("guidance", "needed"), [("cfg", False), ("autoguidance", True)])
def test_a_config_needs_a_weak_model_if_its_method_declares_so(guidance, needed, compose):
    node = compose(f"guidance={guidance}").guidance
    assert guidance_needs_weak(node) is needed
    assert weak_checkpoint(node) is None


def prepared(compose, tmp_path, checkpoint, *overrides):
    command = [f"checkpoint={checkpoint}", "guidance=autoguidance", *overrides]
    config = compose(*command, program="sample", output_dir=tmp_path / "samples")
    return prepare(config, command, SampleConfig)


def test_sampling_is_guided_away_from_the_averaged_weights_of_a_checkpoint(compose, run_dir, tmp_path):
    last = run_dir / "checkpoints" / "last.ckpt"
    model, recipe = prepared(compose, tmp_path, last, f"guidance.weak={last}", "guidance.scale=3", "weights=raw")
    assert isinstance(recipe.guidance, Autoguidance)
    for name, weights in load(last, weights="ema").denoiser.state_dict().items():
        assert torch.equal(recipe.guidance.weak.denoiser.state_dict()[name], weights)
    samples = recipe.sample(model.denoiser, torch.tensor([0, 1]), model.shape)
    assert samples.shape == (2, *model.shape)
    assert not torch.equal(samples, recipe.at(1.0).sample(model.denoiser, torch.tensor([0, 1]), model.shape))


PLAN = Plan(scales=[0.0], num_samples=1, num_classes=1, shape=(1, 8, 8), batch_size=1, seed=0)


@pytest.fixture
def other_schedule(run_dir, tmp_path):
    """A checkpoint of the same model for another noise schedule."""
    content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    content["guided_diffusion"]["config"]["schedule"] |= {"log_snr_min": -10.0}
    torch.save(content, tmp_path / "other.ckpt")
    return tmp_path / "other.ckpt"


def test_an_unusable_weak_model_is_refused(compose, run_dir, classifier_run, other_schedule, tmp_path):
    last, classifier = (folder / "checkpoints" / "last.ckpt" for folder in (run_dir, classifier_run))
    for given, message in (
        (
            [],
            "^guidance.weak is missing: add weak=PATH, the checkpoint of a smaller or less",
        ),
        ([f"guidance.weak={classifier}"], "is the checkpoint of a time-aware classifier, not of a diffusion model"),
        ([f"guidance.weak={other_schedule}"], "can't work together: schedule of the first"),
    ):
        with pytest.raises(ValueError, match=message):
            prepared(compose, tmp_path, last, *given)
    with pytest.raises(FileNotFoundError, match="there is no checkpoint at"):
        prepared(compose, tmp_path, last, "guidance.weak=nowhere.ckpt")


def test_without_a_checkpoint_there_is_no_weak_model():
    assert optional_weak_model(None) is None


def test_samples_are_made_anew_for_another_weak_model(compose, tmp_path):
    files = [tmp_path / name for name in ("model.ckpt", "weak.ckpt")]
    for file in files:
        file.write_bytes(b"weights")
    command = (f"checkpoint={files[0]}", "guidance=autoguidance", f"guidance.weak={files[1]}")
    config, plan = compose(*command, program="evaluate"), PLAN
    expand_paths(config.guidance)
    before = sampling_fingerprint(config, plan)
    files[1].write_bytes(b"other weights")
    assert sampling_fingerprint(config, plan) != before


def test_the_model_itself_is_no_weak_model(compose, run_dir, tmp_path):
    last = run_dir / "checkpoints" / "last.ckpt"
    with pytest.raises(ValueError, match=r"^guidance.weak: .* is the model itself: name a smaller or less trained one"):
        prepared(compose, tmp_path, last, f"weak={last}")
