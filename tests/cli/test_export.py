import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import guided_diffusion
from guided_diffusion.checkpoints.files import LAST, export
from guided_diffusion.checkpoints.loading import load


@pytest.fixture
def output(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.fixture
def exported(checkpoint, output):
    export(checkpoint, output)
    return output


def metadata(path):
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.fixture
def changed(exported):
    """The exported model with a change to its record."""

    def written(change):
        record = json.loads(metadata(exported)["guided_diffusion"])
        change(record)
        save_file(load_file(exported), exported, {"guided_diffusion": json.dumps(record)})
        return exported

    return written


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_an_exported_diffusion_model_is_loaded_unchanged(weights, checkpoint, output):
    export(checkpoint, output, weights)
    first, second = (guided_diffusion.load(path, weights=weights) for path in (checkpoint, output))
    assert same(first.denoiser.state_dict(), second.denoiser.state_dict())
    assert not any(part.training for part in second.denoiser.modules())
    assert (first.config, first.shape, first.class_names) == (second.config, second.shape, second.class_names)
    assert first.schedule == second.schedule


def test_a_model_with_channels_last_is_exported_and_loaded_unchanged(fast_run, output):
    checkpoint, (x, t, y) = fast_run / LAST, (torch.randn(2, 3, 8, 8), torch.full((2,), 0.5), torch.tensor([0, -1]))
    export(checkpoint, output)
    first, second = (guided_diffusion.load(path).denoiser for path in (checkpoint, output))
    assert same(first.state_dict(), second.state_dict())
    assert torch.equal(first(x, t, y).x0, second(x, t, y).x0)


@pytest.mark.parametrize("weights", ["ema", "raw"])
def test_an_exported_classifier_is_loaded_unchanged(weights, classifier_run, output):
    path = classifier_run / "checkpoints" / "last.ckpt"
    export(path, output, weights)
    first, second = (guided_diffusion.load_classifier(one, weights=weights) for one in (path, output))
    assert same(first.classifier.state_dict(), second.classifier.state_dict())
    assert first.config == second.config


def test_the_metadata_is_the_record_as_json(exported, checkpoint):
    record = json.loads(metadata(exported)["guided_diffusion"])
    saved = torch.load(checkpoint, weights_only=True)["guided_diffusion"]
    assert {key: record[key] for key in ("format", "kind", "config", "data")} == saved
    assert record["weights"] == ["ema"]


def test_channels_last_weights_are_loaded_unchanged(fit, tmp_path, output):
    from guided_diffusion.training.callbacks import LastCheckpoint

    fit("module.channels_last=true", callbacks=[LastCheckpoint(str(tmp_path))])
    export(tmp_path / "last.ckpt", output)
    assert same(*(load(path).denoiser.state_dict() for path in (tmp_path / "last.ckpt", output)))


def test_the_program_writes_the_file_and_says_where(call, checkpoint, output):
    called = call("export", f"checkpoint={checkpoint}", "output=model.safetensors", "weights=raw")
    assert (called.status, called.err) == (0, "")
    assert called.out == f"The model is in {output}\n"
    assert list(output.parent.iterdir()) == [output]
    assert same(
        load(output, weights="raw").denoiser.state_dict(), load(checkpoint, weights="raw").denoiser.state_dict()
    )


def test_help_prints_the_usage(call):
    called = call("export", "--help")
    assert called.status == 0
    assert called.out.startswith("usage: python -m guided_diffusion.export checkpoint=PATH")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["output=a.safetensors"], "checkpoint is missing: add checkpoint=PATH"),
        pytest.param(
            ["checkpoint={checkpoint}"], "output is missing: add output=FILE.safetensors", marks=pytest.mark.slow
        ),
        pytest.param(["checkpoint={checkpoint}", "output="], "output is empty", marks=pytest.mark.slow),
        (["checkpoint={checkpoint}", "output=a.ckpt"], "output must end in .safetensors, got a.ckpt"),
        pytest.param(
            ["checkpoint=nowhere.ckpt", "output=a.safetensors"], "there is no checkpoint at", marks=pytest.mark.slow
        ),
        (["checkpoint={checkpoint}", "output=a.safetensors", "weights=best"], "weights must be ema or raw, got 'best'"),
        (
            ["checkpoint={checkpoint}", "output=a.safetensors", "weihgts=raw"],
            "there is no weihgts to set; did you mean weights?",
        ),
        (["{checkpoint}", "a.safetensors"], "can't be read as key=value"),
    ],
)
def test_a_wrong_call_ends_in_one_line_and_leaves_no_file(arguments, message, refused, checkpoint):
    assert message in refused("export", *(argument.format(checkpoint=checkpoint) for argument in arguments))


@pytest.mark.slow
def test_samples_of_the_file_are_those_of_the_checkpoint(call, checkpoint, exported, tmp_path):
    for name, path in (("first", checkpoint), ("second", exported)):
        assert call("sample", f"checkpoint={path}", "num_samples=1", f"hydra.run.dir={name}").status == 0
    first, second = (np.load(tmp_path / name / "samples.npz")["images"] for name in ("first", "second"))
    assert np.array_equal(first, second)


# Which weights


@pytest.mark.parametrize(("there", "other"), [("ema", "raw"), ("raw", "ema")])
def test_weights_that_are_not_in_the_file_are_refused(there, other, checkpoint, output):
    export(checkpoint, output, there)
    with pytest.raises(ValueError, match=f"holds the {there} weights alone: add weights={there}"):
        load(output, weights=other)
    with pytest.raises(ValueError, match=f"holds the {there} weights alone"):
        export(output, output.with_stem("again"), other)


def test_without_an_average_the_weights_have_both_names(checkpoint, output, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    del saved["current_model_state"]
    torch.save(saved, tmp_path / "plain.ckpt")
    export(tmp_path / "plain.ckpt", output)
    assert same(*(load(output, weights=name).denoiser.state_dict() for name in ("ema", "raw")))


# What is refused


@pytest.mark.parametrize("size", [0, 4, 100, -1000, -1])
def test_a_truncated_file_is_refused(size, exported):
    exported.write_bytes(exported.read_bytes()[:size])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged or not a safetensors file"):
        load(exported)


def test_a_checkpoint_that_was_only_renamed_is_refused(checkpoint, output):
    output.write_bytes(checkpoint.read_bytes())
    with pytest.raises(ValueError, match="is damaged or not a safetensors file"):
        load(output)


@pytest.mark.parametrize("content", [None, {}, {"format": "pt"}, {"guided_diffusion": "{}"}, {"guided_diffusion": "3"}])
def test_a_file_without_our_record_is_refused(content, exported):
    save_file(load_file(exported), exported, content)
    with pytest.raises(ValueError, match=r"model\.safetensors is not a checkpoint of guided_diffusion"):
        load(exported)


def test_a_record_that_is_no_json_is_refused(exported):
    save_file(load_file(exported), exported, {"guided_diffusion": "{'kind': "})
    with pytest.raises(ValueError, match="is damaged"):
        load(exported)


@pytest.mark.parametrize("key", ["format", "kind", "config", "data"])
def test_a_record_without_one_of_its_parts_is_refused(key, changed):
    with pytest.raises(ValueError, match="is not a checkpoint of guided_diffusion"):
        load(changed(lambda record: record.pop(key)))


def test_a_class_of_another_package_is_refused_and_not_run(changed, tmp_path):
    node = {"_target_": "builtins.open", "file": str(tmp_path / "it ran"), "mode": "w"}
    with pytest.raises(ValueError, match=r"wants to run builtins\.open"):
        load(changed(lambda record: record["config"].update(network=node)))
    assert not (tmp_path / "it ran").exists()


def test_another_kind_of_model_is_refused(exported):
    with pytest.raises(ValueError, match="is the checkpoint of a diffusion model, not of a time-aware classifier"):
        guided_diffusion.load_classifier(exported)


def test_a_file_from_the_future_is_refused(changed):
    with pytest.raises(ValueError, match="written by a newer version"):
        load(changed(lambda record: record.update(format=99)))


def test_weights_that_do_not_fit_are_refused(exported):
    state = load_file(exported)
    state.popitem()
    save_file(state, exported, metadata(exported))
    with pytest.raises(ValueError, match="don't fit the network of its config"):
        load(exported)


def test_an_unwritable_folder_is_refused(call, checkpoint, tmp_path):
    (tmp_path / "file").touch()
    called = call("export", f"checkpoint={checkpoint}", "output=file/model.safetensors")
    assert (called.status, called.err) == (1, "error: output: file can't be written: Not a directory\n")
