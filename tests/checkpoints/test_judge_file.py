"""A judge, a classifier of clean images, may guide where it is allowed."""

from dataclasses import replace

import pytest
import torch

from guided_diffusion.checkpoints.compatibility import check_guidance
from guided_diffusion.checkpoints.guidance_config import classifier_node
from guided_diffusion.checkpoints.judge_file import holds_judge, judge_spec
from guided_diffusion.checkpoints.loading import load, optional_classifier
from guided_diffusion.classifiers import gradient
from guided_diffusion.cli.config import SampleConfig
from guided_diffusion.cli.restore import prepare
from guided_diffusion.data import Fake
from guided_diffusion.evaluation.judge import JudgeSource
from guided_diffusion.guidance import ClassifierGuidance, JointTemperature, Reconstruction
from guided_diffusion.schedules import Cosine


@pytest.fixture
def judge(monkeypatch, tmp_path):
    """A barely trained judge of the data of ``checkpoint``."""
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(tmp_path / "cache"))
    return JudgeSource(steps=2, width=8, architecture="lenet")(Fake(batch_size=16, validation_size=32))


@pytest.fixture
def judge_file(judge, tmp_path):
    (file,) = (tmp_path / "cache").glob("judge-*.pt")
    return file


def without_images(file):
    saved = torch.load(file)
    del saved["shape"], saved["class_names"]
    torch.save(saved, file)
    return file


def test_a_file_of_a_judge_is_told_from_a_checkpoint_and_from_no_file(judge_file, checkpoint, tmp_path):
    assert holds_judge(judge_file)
    assert not holds_judge(checkpoint)
    assert not holds_judge(tmp_path / "none.pt")


def test_a_judge_is_a_classifier_of_clean_images_at_every_time(judge, judge_file):
    before = torch.get_rng_state()
    with torch.inference_mode():
        classifier = optional_classifier(str(judge_file))
    assert torch.equal(before, torch.get_rng_state())
    x0, t, y = torch.randn(3, 1, 8, 8), torch.tensor([0.0, 0.5, 1.0]), torch.arange(3)
    assert torch.equal(classifier(x0, t), judge.network(x0))
    assert gradient(classifier, x0, t, y).abs().sum() > 0
    assert not any(parameter.requires_grad for parameter in classifier.network.parameters())
    for method in (JointTemperature, Reconstruction):
        with pytest.raises(ValueError, match=r"classifier holds a judge, .* guidance\.allow_judge=true"):
            method(classifier)
        assert method(classifier, allow_judge=True).classifier is classifier
    with pytest.raises(ValueError, match="classifier holds a judge"):
        ClassifierGuidance(classifier)


def test_its_properties_are_those_of_its_data(judge_file, checkpoint):
    model = load(checkpoint)
    assert judge_spec(judge_file, Cosine()) == replace(model.spec, source=str(judge_file), schedule=Cosine())
    node = {"_target_": "guided_diffusion.guidance.JointTemperature", "classifier": classifier_node(str(judge_file))}
    check_guidance(node, model.spec)
    with pytest.raises(ValueError, match=r"can't work together: shape of images of the first: 3, 8, 8"):
        check_guidance(node, replace(model.spec, shape=(3, 8, 8)))


def test_an_older_file_says_what_to_do(judge_file):
    with pytest.raises(ValueError, match="was written by an earlier version: delete it"):
        optional_classifier(str(without_images(judge_file)))


@pytest.fixture
def restored(checkpoint, compose, tmp_path):
    def restore(*overrides):
        command = [f"checkpoint={checkpoint}", *overrides]
        config = compose(*command, program="sample", output_dir=tmp_path / "samples")
        return prepare(config, command, SampleConfig)[1].guidance

    return restore


def test_from_the_command_line_a_judge_guides_only_where_it_is_allowed(restored, judge_file):
    given = f"guidance.classifier={judge_file}"
    with pytest.raises(ValueError, match=r"classifier holds a judge.*add guidance.allow_judge=true"):
        restored("guidance=joint_temperature", given)
    with pytest.raises(ValueError, match="add guidance=joint_temperature"):
        restored("guidance=adam_classifier", given)
    guidance = restored("guidance=joint_temperature", given, "guidance.allow_judge=true", "guidance.softplus_beta=3")
    assert guidance.classifier.is_judge
    assert (guidance.tau2, guidance.softplus_beta, guidance.base) == (0.5, 3, "conditional")


@pytest.mark.parametrize("name", ["joint_temperature", "adam_classifier"])
def test_a_time_aware_classifier_guides(name, restored, classifier_checkpoint):
    guidance = restored(f"guidance={name}", f"classifier={classifier_checkpoint}")
    assert guidance.classifier(torch.zeros(2, 1, 8, 8), torch.full((2,), 0.01)).shape == (2, 10)
