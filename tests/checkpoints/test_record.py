import importlib
from pathlib import Path

import pytest
import torch

from guided_diffusion.checkpoints.loading import load, load_classifier
from guided_diffusion.checkpoints.record import FORMAT, TRUSTED, check_targets


def test_the_record_is_plain_data_about_the_model_and_its_training(content, run_dir):
    record = content["guided_diffusion"]
    assert set(record) == {"format", "kind", "config", "data"}
    assert record["kind"] == "diffusion"
    assert record["data"] == {
        "name": "fake",
        "shape": [1, 8, 8],
        "class_names": [f"class {index}" for index in range(10)],
        "range": [-1.0, 1.0],
    }
    assert record["config"]["network"]["width"] == 8
    assert record["config"]["output_dir"] == str(run_dir)


def test_a_checkpoint_of_the_first_format_can_be_read(with_record, checkpoint, flatten):
    """The first format had the number 0, and no range of the pixels."""

    def change(record):
        record["format"] = FORMAT - 1
        del record["data"]["range"]

    model = load(with_record(change))
    assert model.spec.value_range == (-1.0, 1.0)
    assert torch.equal(flatten(model.denoiser.state_dict()), flatten(load(checkpoint).denoiser.state_dict()))


def test_a_checkpoint_of_a_newer_version_is_rejected(with_record):
    path = with_record(lambda record: record.update(format=FORMAT + 1))
    with pytest.raises(ValueError, match="written by a newer version"):
        load(path)


def test_a_classifier_is_rejected_where_a_diffusion_model_is_needed(with_record):
    path = with_record(lambda record: record.update(kind="classifier"))
    with pytest.raises(ValueError, match="is the checkpoint of a time-aware classifier, not of a diffusion model"):
        load(path)


def test_a_diffusion_model_is_rejected_where_a_classifier_is_needed(checkpoint):
    with pytest.raises(ValueError, match="is the checkpoint of a diffusion model, not of a time-aware classifier"):
        load_classifier(checkpoint)


@pytest.mark.parametrize("node", [None, "{_target_: os.system, command: exit}", 3])
def test_a_config_without_a_node_that_will_be_built_is_rejected(node, with_record):
    path = with_record(lambda record: record["config"].update(sampler=node))
    with pytest.raises(ValueError, match="its config has no sampler"):
        load(path)


@pytest.mark.parametrize("key", ["network", "schedule", "guidance", "threshold", "sampler"])
def test_a_config_that_names_an_untrusted_function_is_rejected_and_nothing_is_run(key, with_record, trap):
    path = with_record(lambda record: record["config"].update({key: trap.node}))
    with pytest.raises(ValueError, match=r"wants to run builtins\.open"):
        load(path)
    assert not trap.was_run


def test_a_classifier_that_names_an_untrusted_function_is_rejected(classifier_checkpoint, trap, tmp_path):
    content = torch.load(classifier_checkpoint, weights_only=True)
    content["guided_diffusion"]["config"]["network"] = trap.node
    torch.save(content, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"wants to run builtins\.open"):
        load_classifier(tmp_path / "evil.ckpt")
    assert not trap.was_run


@pytest.mark.parametrize("nest", [lambda node: {"more": node}, lambda node: {"more": [{"deep": node}]}])
def test_an_untrusted_function_is_found_at_any_depth(nest, trap):
    node = {"_target_": "guided_diffusion.schedules.Cosine"} | nest(trap.node)
    with pytest.raises(ValueError, match=r"a\.ckpt wants to run builtins\.open"):
        check_targets(node, TRUSTED, Path("a.ckpt"))


@pytest.mark.parametrize(
    "target",
    [
        "guided_diffusion.utils.files.os.system",
        "guided_diffusion.checkpoints.files.pickle.loads",
        "guided_diffusion.utils.instantiate.instantiate",
        "guided_diffusion.nothing.Schedule",
        "guided_diffusion_of_others.Schedule",
    ],
)
def test_an_object_that_a_trusted_module_only_imports_is_not_trusted(target):
    with pytest.raises(ValueError, match=f"wants to run {target}"):
        check_targets({"_target_": target}, TRUSTED, Path("a.ckpt"))


def test_users_can_trust_their_own_package(with_record, tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(
        "from guided_diffusion.networks import UNet\n\n\nclass Own(UNet):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = with_record(lambda record: record["config"]["network"].update(_target_="own_networks.Own"))
    with pytest.raises(ValueError, match=r"wants to run own_networks\.Own, .* add trusted=\[own_networks\]"):
        load(path)
    model = load(path, trusted=(*TRUSTED, "own_networks."))
    assert isinstance(model.denoiser.backbone, importlib.import_module("own_networks").Own)


@pytest.mark.parametrize(
    "node",
    [
        {"_target_": "guided_diffusion.cli.notebook.train", "_args_": ["++data._target_=builtins.open"]},
        {"_target_": "guided_diffusion.utils.instantiate.build", "node": {}},
        {"_target_": "guided_diffusion.checkpoints.load", "checkpoint": "a.ckpt", "trusted": ["os"]},
        {"_target_": "guided_diffusion.checkpoints.optional_classifier", "checkpoint": "a.ckpt", "trusted": ["os"]},
        {"_target_": "guided_diffusion.checkpoints.optional_classifier", "_args_": ["a.ckpt", ["os"]]},
    ],
)
def test_a_record_may_not_run_this_packages_programs_or_trust_another_package(node):
    with pytest.raises(ValueError, match="wants to run guided_diffusion"):
        check_targets(node, (), Path("a.ckpt"))


def test_a_record_may_name_the_classifier_that_guides():
    node = {"_target_": "guided_diffusion.checkpoints.optional_classifier", "checkpoint": "a.ckpt"}
    check_targets({"_target_": "guided_diffusion.guidance.ClassifierGuidance", "classifier": node}, (), Path("a.ckpt"))


def test_a_trusted_package_that_is_not_found_is_named():
    with pytest.raises(ValueError, match=r"needs no_package\.Net, which can't be imported: .*PYTHONPATH"):
        check_targets({"_target_": "no_package.Net"}, ["no_package"], Path("a.ckpt"))
