"""A model with a network and data from the user's own package is trained, sampled, evaluated and exported."""

import importlib
import sys

import pytest

from guided_diffusion.checkpoints import load, load_classifier

PACKAGE = """
from guided_diffusion.data import Fake
from guided_diffusion.networks import NoisyClassifier, UNet


class Net(UNet):
    pass


class Judge(NoisyClassifier):
    pass


class Data(Fake):
    name = "own"
"""
OWN = ("++network._target_=own_package.Net", "++data._target_=own_package.Data")


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package outside of this one, on Python's path."""
    (tmp_path / "own_package.py").write_text(PACKAGE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("own_package")
    sys.modules.pop("own_package", None)


@pytest.fixture
def trained(package, call, minimal, tmp_path):
    """The checkpoint of a training with the package's network and data."""
    called = call("train", *minimal, *OWN, "output_dir=own")
    assert called.status == 0, called.err
    return tmp_path / "own" / "checkpoints" / "last.ckpt"


@pytest.mark.slow
def test_a_model_of_the_users_package_goes_through_every_program(trained, package, call, tmp_path):
    quick = ("trainer.accelerator=cpu", "num_samples=3", "sampler.steps=2")
    refused = call("sample", f"checkpoint={trained}", *quick)
    assert refused.status == 1
    assert "wants to run own_package.Net" in refused.err
    assert "add trusted=[own_package]" in refused.err

    trusting = (f"checkpoint={trained}", "trusted=[own_package]")
    for arguments in (
        ("sample", *trusting, *quick, "output_dir=samples"),
        ("evaluate", *trusting, *quick, "scales=[1]", "judge.steps=2", "judge.width=8", "output_dir=evaluated"),
        ("export", f"checkpoint={trained}", "output=own.safetensors"),  # it rebuilds nothing
    ):
        called = call(*arguments)
        assert called.status == 0, called.err
    assert (tmp_path / "evaluated" / "report.html").is_file()

    model = load(tmp_path / "own.safetensors", trusted=["own_package"])
    assert isinstance(model.denoiser.backbone, package.Net)
    assert isinstance(model.data(), package.Data)


@pytest.mark.slow
def test_a_training_trusts_the_package_of_its_guide_and_of_its_classifier(
    trained, package, call, minimal, tiny, classifier_overrides, tmp_path
):
    classify = [*tiny, *classifier_overrides, "++network._target_=own_package.Judge"]
    guided = ("train", *classify, f"callbacks.guide={trained}", "output_dir=classifier")
    assert "add trusted=[own_package]" in call(*guided).err
    called = call(*guided, "trusted=[own_package]")
    assert called.status == 0, called.err
    classifier = tmp_path / "classifier" / "checkpoints" / "last.ckpt"
    assert isinstance(load_classifier(classifier, trusted=["own_package"]).classifier.backbone, package.Judge)

    guidance = ("guidance=classifier", f"guidance.classifier={classifier}")
    with_classifier = ("train", *minimal, *guidance, "output_dir=guided")
    assert "add trusted=[own_package]" in call(*with_classifier).err
    assert call(*with_classifier, "trusted=[own_package]").status == 0
    sampling = ("sample", f"checkpoint={trained}", *guidance, "num_samples=2", "sampler.steps=2", "output_dir=by")
    assert call(*sampling, "trusted=[own_package]").status == 0
