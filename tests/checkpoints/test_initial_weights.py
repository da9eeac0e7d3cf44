"""What a new network takes over from the checkpoint of another training, and what is refused."""

from copy import deepcopy

import pytest
import torch
from omegaconf import OmegaConf

from guided_diffusion.checkpoints.files import export
from guided_diffusion.checkpoints.initial_weights import InitialWeights
from guided_diffusion.checkpoints.record import build_network, make_record
from guided_diffusion.data import Fake


@pytest.fixture
def new(compose, tiny):
    """``new(*overrides, kind=, class_names=, shape=)`` is the network and the record of a new training."""

    def made(*overrides, kind="diffusion", class_names=None, shape=(1, 8, 8)):
        config = OmegaConf.to_container(compose(*tiny, *overrides), resolve=True)
        data = Fake(batch_size=1, validation_size=0, channels=shape[0], image_size=shape[1])
        data.class_names = tuple(class_names or data.class_names)
        network = build_network(config["network"], shape, data.num_classes)
        return network, make_record(kind, config, data)

    return made


@pytest.fixture
def average(content):
    """The averaged weights in ``checkpoint``, by their names in the network."""
    prefix = "denoiser.backbone."
    state = content["state_dict"]
    return {name.removeprefix(prefix): state[name] for name in state if name.startswith(prefix)}


TABLE = "condition.label.weight"


def test_a_network_for_the_same_classes_takes_over_every_averaged_weight(checkpoint, average, new):
    network, record = new()
    origin, line = InitialWeights.read(checkpoint).load_into(network, record)
    state = network.state_dict()
    assert state.keys() == average.keys()
    assert all(torch.equal(state[name], average[name]) for name in state)
    assert (origin["path"], origin["step"], origin["weights"], origin["new"]) == (str(checkpoint), 4, "ema", {})
    count = len(state)
    assert line == (
        f"init_from: the ema weights of step 4 (fake) from {checkpoint}; carried over: {count} of {count} tensors; "
        "new: the optimizer, the average of the weights and the step"
    )


@pytest.mark.parametrize("number", [2, 12])
def test_another_number_of_classes_gets_a_new_table_of_labels_with_the_rows_of_classes_of_the_same_name(
    number, checkpoint, average, new
):
    names = [f"class {index}" for index in reversed(range(number))]
    network, record = new(class_names=names)
    before = deepcopy(network.state_dict())
    origin, line = InitialWeights.read(checkpoint).load_into(network, record)
    state = network.state_dict()
    rest = state.keys() - {TABLE}
    assert all(torch.equal(state[name], average[name]) for name in rest)
    for row, name in enumerate(names):
        old = int(name.removeprefix("class "))
        assert torch.equal(state[TABLE][row], average[TABLE][old] if old < 10 else before[TABLE][row])
    assert torch.equal(state[TABLE][-1], average[TABLE][-1])  # no label
    assert origin["new"] == ({TABLE: ["class 11", "class 10"]} if number == 12 else {})
    assert (f"{TABLE} except for class 11, class 10; new: these rows, the optimizer" in line) == (number == 12)


def test_other_classes_get_new_rows_even_if_they_are_as_many(checkpoint, average, new):
    network, record = new(class_names=list("abcdefghij"))
    before = network.state_dict()[TABLE].clone()
    _, line = InitialWeights.read(checkpoint).load_into(network, record)
    assert torch.equal(network.state_dict()[TABLE], torch.cat([before[:-1], average[TABLE][-1:]]))
    assert f"{TABLE} except for a, b, c and 7 more" in line


def test_a_classifier_gets_a_new_last_layer(classifier_checkpoint, classifier_overrides, new):
    network, record = new(*classifier_overrides, kind="classifier", class_names=list("abc"))
    last = {name: value.clone() for name, value in network.state_dict().items() if name.startswith("pool.output")}
    weights = InitialWeights.read(classifier_checkpoint)
    origin, _ = weights.load_into(network, record)
    state = network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in last.items())
    assert all(torch.equal(state[name], weights.state[name]) for name in state.keys() - last.keys())
    assert origin["new"] == {"pool.output.weight": list("abc"), "pool.output.bias": list("abc")}


def test_another_image_size_dropout_and_schedule_are_allowed_where_the_shapes_match(checkpoint, average, new):
    network, record = new("network.dropout=0.3", "schedule=linear_beta", shape=(1, 16, 16))
    _, line = InitialWeights.read(checkpoint).load_into(network, record)
    assert torch.equal(network.state_dict()["input.weight"], average["input.weight"])
    assert line.endswith("; note: they were trained with another noise schedule")


@pytest.mark.parametrize(
    ("overrides", "shape", "message"),
    [
        ([], (3, 8, 8), "samples of shape 1x8x8, and here they have 3x8x8: the number of channels must be the same"),
        (["network.width=16"], (1, 8, 8), r"make equal: network.width \(8 there, 16 here\)"),
        (["network.combine=multiply"], (1, 8, 8), r"make equal: network.combine \(add there, multiply here\)"),
        (["module.parameterization=eps"], (1, 8, 8), r"make equal: module.parameterization \(v there, eps here\)"),
    ],
)
def test_another_network_is_refused_with_the_settings_that_differ(overrides, shape, message, checkpoint, new):
    with pytest.raises(ValueError, match=f"^init_from: .*{message}$"):
        InitialWeights.read(checkpoint).load_into(*new(*overrides, shape=shape))


def test_weights_of_other_shapes_are_refused_with_their_names(classifier_checkpoint, classifier_overrides, new):
    network = new(*classifier_overrides, kind="classifier", shape=(1, 16, 16))
    message = r"don't fit this network: pool.places \(\(17, 16\) there, \(65, 16\) here\)$"
    with pytest.raises(ValueError, match=message):
        InitialWeights.read(classifier_checkpoint).load_into(*network)


def test_another_kind_of_model_is_refused(classifier_checkpoint, new):
    with pytest.raises(ValueError, match="is the checkpoint of a time-aware classifier, not of a diffusion model"):
        InitialWeights.read(classifier_checkpoint).load_into(*new())


@pytest.mark.parametrize(("part", "key"), [("config", "network"), ("data", "class_names")])
def test_a_record_without_network_or_classes_is_refused(part, key, with_record):
    path = with_record(lambda record: record[part].pop(key))
    with pytest.raises(ValueError, match="does not say of which network and classes its weights are"):
        InitialWeights.read(path)


def test_nothing_that_the_file_names_is_run(with_record, trap, new):
    path = with_record(lambda record: record["config"].update(network=trap.node, schedule=trap.node))
    with pytest.raises(ValueError, match=r"make equal: network\._target_"):
        InitialWeights.read(path).load_into(*new())
    assert not trap.was_run


def test_the_content_is_that_of_the_weights_and_not_of_the_file(checkpoint, content, tmp_path):
    expected = InitialWeights.read(checkpoint).content
    export(checkpoint, tmp_path / "model.safetensors")
    assert InitialWeights.read(tmp_path / "model.safetensors").content == expected
    assert InitialWeights.read(checkpoint.parents[1]).content == expected
    content["state_dict"]["denoiser.backbone.input.bias"][0] += 1e-6
    torch.save(content, tmp_path / "changed.ckpt")
    assert InitialWeights.read(tmp_path / "changed.ckpt").content != expected


def test_an_exported_file_of_raw_weights_gives_those(checkpoint, content, tmp_path):
    export(checkpoint, tmp_path / "raw.safetensors", "raw")
    weights = InitialWeights.read(tmp_path / "raw.safetensors")
    raw = content["current_model_state"]["denoiser.backbone.input.weight"]
    assert weights.weights == "raw"
    assert torch.equal(weights.state["input.weight"], raw)
