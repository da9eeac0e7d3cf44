import ast
import copy
import importlib
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import guided_diffusion
from guided_diffusion.checkpoints.compatibility import ModelSpec, check_match
from guided_diffusion.checkpoints.loading import FORMAT, load, load_classifier
from guided_diffusion.classifiers import gradient
from guided_diffusion.data import Fake
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.evaluation.chunks import Chunks
from guided_diffusion.evaluation.judge import JudgeSource
from guided_diffusion.evaluation.plan import Plan
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.schedules import Cosine, LinearBeta

PACKAGE = Path(guided_diffusion.__file__).parent


@pytest.fixture
def path(run_dir):
    return run_dir / "checkpoints" / "last.ckpt"


@pytest.fixture
def saved(path):
    return torch.load(path, weights_only=True)


@pytest.fixture
def changed(saved, tmp_path):
    """A checkpoint with a change to its record."""

    def written(change):
        content = copy.deepcopy(saved)
        change(content["guided_diffusion"])
        torch.save(content, tmp_path / "changed.ckpt")
        return tmp_path / "changed.ckpt"

    return written


def weights(state):
    return torch.cat([tensor.flatten() for tensor in state.values()])


def test_the_record_is_plain_data_that_says_what_the_model_is(saved, run_dir):
    record = saved["guided_diffusion"]
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


@pytest.mark.parametrize("name", ["last.ckpt", "best.ckpt"])
def test_a_model_is_rebuilt_in_eval_mode_with_the_average(name, run_dir):
    saved = torch.load(run_dir / "checkpoints" / name, weights_only=True)
    model = load(run_dir / "checkpoints" / name)
    assert isinstance(model.denoiser, Denoiser)
    assert not any(part.training for part in model.denoiser.modules())
    assert torch.equal(weights(model.denoiser.state_dict()), weights(saved["state_dict"]))
    assert model.schedule == model.denoiser.schedule == Cosine(log_snr_min=-15.0)
    assert (model.shape, model.num_classes) == ((1, 8, 8), 10)
    assert model.class_names[3] == "class 3"
    assert model.config["seed"] == 0


def test_the_raw_weights_are_others(path, saved):
    raw = weights(load(path, weights="raw").denoiser.state_dict())
    assert torch.equal(raw, weights(saved["current_model_state"]))
    assert not torch.equal(raw, weights(load(path).denoiser.state_dict()))


def test_without_an_average_both_are_the_weights_there_are(saved, tmp_path):
    del saved["current_model_state"]
    torch.save(saved, tmp_path / "plain.ckpt")
    first, second = (load(tmp_path / "plain.ckpt", weights=name).denoiser.state_dict() for name in ("ema", "raw"))
    assert torch.equal(weights(first), weights(second))


def test_the_model_comes_from_the_config_inside_and_not_from_todays_defaults(compose, tiny, fit, tmp_path):
    from guided_diffusion.training.callbacks import LastCheckpoint

    unusual = ["network.combine=concat", "schedule=linear_beta", "module.parameterization=eps", "data.channels=3"]
    _, module = fit(*unusual, callbacks=[LastCheckpoint(str(tmp_path))])
    model = load(tmp_path / "last.ckpt")
    x_t, t, y = torch.randn(4, 3, 8, 8), torch.linspace(0.1, 1, 4), torch.arange(4)
    with torch.no_grad():
        expected = module.denoiser.eval()(x_t, t, y)
        assert torch.equal(model.denoiser(x_t, t, y).x0, expected.x0)
    assert model.denoiser.parameterization.name == "eps"


def test_it_is_loaded_from_the_package_itself(path):
    assert guided_diffusion.load is load
    with pytest.raises(AttributeError, match="lode"):
        _ = guided_diffusion.lode


def test_the_core_is_imported_without_what_training_needs():
    parts = ["schedules", "denoisers", "losses", "guidance", "samplers", "recipe", "oracles", "networks"]
    code = (
        f"import importlib, sys\n"
        f"for part in {parts}: importlib.import_module('guided_diffusion.' + part)\n"
        f"heavy = ['pytorch_lightning', 'hydra', 'omegaconf', 'wandb', 'torchvision', 'matplotlib', 'sklearn']\n"
        f"print([name for name in heavy if name in sys.modules])"
    )
    parent = Path(guided_diffusion.__file__).parent.parent
    assert subprocess.check_output([sys.executable, "-c", code], cwd=parent, text=True) == "[]\n"


# What is refused


def test_a_file_that_is_not_there_is_missed_by_name(tmp_path):
    with pytest.raises(FileNotFoundError, match=f"there is no checkpoint at {tmp_path / 'none.ckpt'}"):
        load(tmp_path / "none.ckpt")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        load(tmp_path)


def test_a_folder_is_answered_with_the_checkpoint_in_it(path):
    for folder in (path.parent, path.parent.parent):
        with pytest.raises(FileNotFoundError, match=f"at {folder}: it is a folder; did you mean {path}\\?"):
            load(folder)


@pytest.mark.parametrize("device", ["cuda:99", "gpu"])
def test_a_device_that_is_not_there_is_named(device, path):
    with pytest.raises(ValueError, match=f"device {device} can't be used: "):
        load(path, device)


@pytest.mark.parametrize("size", [0, 10, 1000, -1000, -1])
def test_a_truncated_file_is_refused(size, path, tmp_path):
    (tmp_path / "half.ckpt").write_bytes(path.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"half\.ckpt is (damaged|not a checkpoint)"):
        load(tmp_path / "half.ckpt")


class Code:
    """A pickle of this makes a file when it is loaded."""

    def __init__(self, file):
        self.file = str(file)

    def __reduce__(self):
        return open, (self.file, "w")


@pytest.mark.parametrize("save", [torch.save, lambda content, path: path.write_bytes(pickle.dumps(content))])
def test_a_file_that_holds_code_is_refused_and_the_code_not_run(save, saved, tmp_path):
    saved["extra"] = Code(tmp_path / "it ran")
    save(saved, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match="holds code, which is not loaded"):
        load(tmp_path / "evil.ckpt")
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("damage", ["code", "half"])
def test_samples_of_an_evaluation_that_hold_code_or_are_damaged_are_refused(damage, path, tmp_path):
    model = load(path)
    plan = Plan([1.0], 1, 10, model.shape, batch_size=10)
    chunks = Chunks(model.denoiser, Recipe(sampler=Sampler(steps=1)), plan, tmp_path)
    chunks.predict_step(torch.tensor([0]), 0)
    (file,) = tmp_path.iterdir()
    if damage == "code":
        torch.save(torch.load(file, weights_only=True) | {"extra": Code(tmp_path / "it ran")}, file)
    else:
        file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"chunk_00000\.pt is damaged, or holds code: delete it"):
        chunks.collect([1.0])
    assert not (tmp_path / "it ran").exists()


def test_a_judge_that_holds_code_is_refused(tmp_path):
    torch.save({"judge": Code(tmp_path / "it ran"), "width": 8, "ceiling": 1.0}, tmp_path / "judge.pt")
    with pytest.raises(ValueError, match=r"judge\.pt holds no judge"):
        JudgeSource(str(tmp_path / "judge.pt"))(Fake(batch_size=16, validation_size=32))
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("content", [{"state_dict": {}}, [1, 2], torch.zeros(3)])
def test_a_file_of_another_program_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "other.ckpt")
    with pytest.raises(ValueError, match=r"other\.ckpt is not a checkpoint of guided_diffusion"):
        load(tmp_path / "other.ckpt")


def test_another_kind_of_model_is_refused_by_its_name(changed):
    with pytest.raises(ValueError, match="is the checkpoint of a time-aware classifier, not of a diffusion model"):
        load(changed(lambda record: record.update(kind="classifier")))


def test_a_checkpoint_from_the_future_is_refused(changed):
    with pytest.raises(ValueError, match="written by a newer version"):
        load(changed(lambda record: record.update(format=99)))


def test_a_checkpoint_of_the_first_format_is_read(changed, path):
    """Before there were numbers from 1 on, and before it said the range of the pixels."""

    def change(record):
        record["format"] = FORMAT - 1
        del record["data"]["range"]

    model = load(changed(change))
    assert model.spec.value_range == (-1.0, 1.0)
    assert torch.equal(weights(model.denoiser.state_dict()), weights(load(path).denoiser.state_dict()))


@pytest.mark.parametrize("content", [{"format": "1"}, {"kind": None}, {"config": []}, {"data": None}])
def test_a_record_of_another_form_is_refused(content, changed):
    with pytest.raises(ValueError, match=r"changed\.ckpt is not a checkpoint of guided_diffusion"):
        load(changed(lambda record: record.update(content)))


def calls(name):
    """Every call in the package of a function of this name."""
    for file in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == name:
                yield node


def test_the_package_unpickles_nothing_but_data():
    loads = list(calls("torch.load"))
    assert len(loads) >= 2
    for call in loads:
        assert {word.arg: ast.unparse(word.value) for word in call.keywords}["weights_only"] == "True"
    for name in ("pickle.load", "pickle.loads", "joblib.load", "cloudpickle.loads"):
        assert not list(calls(name))
    for call in calls("np.load"):
        assert "allow_pickle" not in {word.arg for word in call.keywords}


def writes(file):
    return {"_target_": "builtins.open", "file": str(file), "mode": "w"}


@pytest.mark.parametrize("key", ["network", "schedule", "guidance", "threshold", "sampler"])
@pytest.mark.parametrize("depth", [0, 1, 2])
def test_a_class_of_another_package_is_refused_wherever_it_is_named(key, depth, changed, tmp_path):
    def change(record):
        node = record["config"][key]
        if depth == 0:
            record["config"][key] = writes(tmp_path / "it ran")
        elif depth == 1:
            node["more"] = writes(tmp_path / "it ran")
        else:
            node["more"] = [{"deep": writes(tmp_path / "it ran")}]

    with pytest.raises(ValueError, match=r"wants to run builtins\.open: name its package in trusted="):
        load(changed(change))
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize(
    "target",
    [
        "guided_diffusion.utils.files.os.system",  # what a module of the package has imported
        "guided_diffusion.checkpoints.pickle.loads",
        "guided_diffusion.cli.config.instantiate",
        "guided_diffusion.nothing.Schedule",
        "guided_diffusion_of_others.Schedule",
    ],
)
def test_to_be_reached_through_the_package_is_not_to_be_of_it(target, changed):
    with pytest.raises(ValueError, match=f"wants to run {target}"):
        load(changed(lambda record: record["config"].update(schedule={"_target_": target})))


@pytest.mark.parametrize("node", [None, "{_target_: os.system, command: exit}", 3])
def test_a_config_that_is_none_is_refused(node, changed):
    with pytest.raises(ValueError, match="its config has no sampler"):
        load(changed(lambda record: record["config"].update(sampler=node)))


def test_a_package_of_ones_own_can_be_trusted(changed, saved, tmp_path, monkeypatch):
    (tmp_path / "own_networks.py").write_text(
        "from guided_diffusion.networks import UNet\n\n\nclass Own(UNet):\n    pass\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    path = changed(lambda record: record["config"]["network"].update(_target_="own_networks.Own"))
    with pytest.raises(ValueError, match=r"wants to run own_networks\.Own: name its package in trusted="):
        load(path)
    model = load(path, trusted=("guided_diffusion.", "own_networks."))
    assert isinstance(model.denoiser.backbone, importlib.import_module("own_networks").Own)
    assert isinstance(model.denoiser.backbone, nn.Module)


# Classifiers


@pytest.fixture
def classifier(classifier_run):
    return classifier_run / "checkpoints" / "last.ckpt"


def test_a_classifier_is_rebuilt_in_eval_mode_with_the_average(classifier):
    saved, model = torch.load(classifier, weights_only=True), load_classifier(classifier)
    assert saved["guided_diffusion"]["kind"] == "classifier"
    assert not any(part.training for part in model.classifier.modules())
    assert not any(parameter.requires_grad for parameter in model.classifier.parameters())
    assert torch.equal(weights(model.classifier.state_dict()), weights(saved["state_dict"]))
    raw = load_classifier(classifier, weights="raw")
    assert torch.equal(weights(raw.classifier.state_dict()), weights(saved["current_model_state"]))
    x_t, t = torch.randn(4, 1, 8, 8), torch.linspace(0.1, 1, 4)
    assert torch.equal(model(x_t, t), model.classifier(x_t, t))
    assert (model.schedule, model.shape, model.num_classes) == (Cosine(), (1, 8, 8), 10)


def test_a_classifier_loaded_in_inference_mode_has_gradients_all_the_same(classifier):
    inputs = torch.randn(2, 1, 8, 8), torch.tensor([0.2, 0.8]), torch.tensor([0, 1])
    with torch.inference_mode():
        inside = gradient(load_classifier(classifier), *inputs)
    assert torch.equal(inside, gradient(load_classifier(classifier), *inputs))


def test_a_diffusion_model_is_no_classifier(path):
    with pytest.raises(ValueError, match="is the checkpoint of a diffusion model, not of a time-aware classifier"):
        load_classifier(path)


def test_a_classifier_of_another_package_is_refused(classifier, tmp_path):
    saved = torch.load(classifier, weights_only=True)
    saved["guided_diffusion"]["config"]["network"] = writes(tmp_path / "it ran")
    torch.save(saved, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=r"wants to run builtins\.open"):
        load_classifier(tmp_path / "evil.ckpt")


TRAIT = ModelSpec("a.ckpt", Cosine(), (1, 8, 8), ("cat", "dog"))


def test_models_for_the_same_images_match():
    check_match(TRAIT, replace(TRAIT, source="b.ckpt", schedule=Cosine(-15)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": LinearBeta()}, r"schedule of the first: Cosine.*-15.*; of the second: LinearBeta.*1000.*"),
        ({"schedule": Cosine(-10)}, r"schedule .*-15.*-10.*"),
        ({"shape": (3, 8, 8)}, "shape of images of the first: 1, 8, 8; of the second: 3, 8, 8"),
        ({"class_names": ("cat",)}, "classes of the first: cat, dog; of the second: cat"),
        ({"value_range": (0.0, 1.0)}, r"range of pixels of the first: -1\.0, 1\.0; of the second: 0\.0, 1\.0"),
    ],
)
def test_models_that_do_not_match_are_named_with_the_difference(change, message):
    with pytest.raises(ValueError, match=f"^a.ckpt and b.ckpt can't work together: {message}$"):
        check_match(TRAIT, replace(TRAIT, source="b.ckpt", **change))
