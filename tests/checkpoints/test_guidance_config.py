import sys
from types import ModuleType

import pytest
import torch
from omegaconf import OmegaConf

from guided_diffusion.checkpoints.guidance_config import (
    OTHER_MODELS,
    classifier_checkpoint,
    expand_paths,
    guidance_needs_classifier,
)
from guided_diffusion.checkpoints.renamed import update_targets
from guided_diffusion.cli.config import CONFIG_PATH, MODELS, SampleConfig
from guided_diffusion.cli.restore import prepare
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance, Combined
from guided_diffusion.utils.instantiate import build

FORMER = {
    "classifier_guidance": {"scale": 3.0, "base": "conditional", "temperature": 0.5},
    "combined_guidance": {"scale": 3.0, "classifier_scale": 2.0, "temperature": 0.5},
}
METHODS = {"classifier_guidance": ClassifierGuidance, "combined_guidance": Combined}


def former(name, classifier):
    return {"_target_": f"guided_diffusion.checkpoints.{name}", "classifier": classifier, **FORMER[name]}


@pytest.mark.parametrize(
    ("guidance", "key"),
    [
        ("classifier", "classifier"),
        pytest.param("cfg_classifier", "guidance.classifier", marks=pytest.mark.slow),
        ("classifier", "guidance.classifier.checkpoint"),
    ],
)
def test_a_classifier_can_be_given_by_each_of_its_keys(guidance, key, compose):
    config = compose(f"guidance={guidance}", f"{key}=some.ckpt")
    expand_paths(config.guidance)
    assert config.guidance.classifier == {
        "_target_": "guided_diffusion.checkpoints.optional_classifier",
        "checkpoint": "some.ckpt",
    }
    assert config.recipe.guidance.classifier.checkpoint == classifier_checkpoint(config.guidance) == "some.ckpt"


@pytest.mark.parametrize(
    ("guidance", "needed"),
    [
        *(("cfg", False), ("interval", False), ("classifier", True), ("cfg_classifier", True)),
        *(("joint_temperature", True), ("adam_classifier", True)),
    ],
)
def test_a_config_needs_a_classifier_if_its_method_declares_so(guidance, needed):
    node = OmegaConf.load(f"{CONFIG_PATH}/guidance/{guidance}.yaml")
    node = OmegaConf.create({"guidance": node, "classifier": None}).guidance
    assert guidance_needs_classifier(node) is needed
    assert classifier_checkpoint(node) is None


@pytest.mark.parametrize("node", [{}, {"_target_": "nowhere.Method", "classifier": "some.ckpt"}])
def test_a_node_that_names_no_known_method_is_left_unchanged(node):
    expand_paths(node)
    assert not guidance_needs_classifier(node)
    assert node.get("classifier") in (None, "some.ckpt")


@pytest.mark.parametrize("classifier", [None, "some.ckpt"])
@pytest.mark.parametrize("name", FORMER)
def test_the_guidance_of_an_earlier_checkpoint_gets_its_present_name(name, classifier):
    node = update_targets(former(name, classifier))
    assert guidance_needs_classifier(node)
    assert classifier_checkpoint(node) == classifier
    if classifier is None:
        assert build(node) == METHODS[name](None, **FORMER[name])


def test_reading_a_record_imports_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "untrusted", ModuleType("untrusted"))
    node = {"_target_": "untrusted.Method", "classifier": "some.ckpt"}
    assert update_targets(node) == {"_target_": "untrusted.Method", "classifier": "some.ckpt"}


@pytest.fixture
def restored(run_dir, classifier_run, compose, tmp_path):
    """The recipe of ``sample`` from a checkpoint whose record holds this guidance."""

    def restore(guidance, *overrides):
        content = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
        content["guided_diffusion"]["config"]["guidance"] = guidance
        torch.save(content, tmp_path / "earlier.ckpt")
        command = [f"checkpoint={tmp_path / 'earlier.ckpt'}", *overrides]
        config = compose(*overrides, program="sample", output_dir=tmp_path / "samples")
        config.checkpoint = str(tmp_path / "earlier.ckpt")
        return prepare(config, command, SampleConfig)[1]

    return restore


@pytest.mark.parametrize("name", FORMER)
def test_an_earlier_checkpoint_samples_with_its_classifier(name, restored, classifier_run):
    guidance = restored(former(name, str(classifier_run / "checkpoints" / "last.ckpt"))).guidance
    assert isinstance(guidance, METHODS[name])
    x_t, t = torch.zeros(2, 1, 8, 8), torch.full((2,), 0.5)
    assert guidance.classifier(x_t, t).shape == (2, 10)
    assert (guidance.scale, guidance.temperature) == (3.0, 0.5)


def test_an_earlier_checkpoint_without_its_classifier_says_what_to_add(restored):
    with pytest.raises(ValueError, match=r"guidance.classifier is missing: add guidance.classifier=PATH"):
        restored(former("combined_guidance", None))


def test_an_earlier_checkpoint_may_be_sampled_by_another_method(restored):
    assert restored(former("classifier_guidance", None), "guidance=cfg").guidance == ClassifierFree(2.0)


def test_the_programs_know_the_keys_of_all_models_that_guide():
    assert tuple(OTHER_MODELS) == MODELS
