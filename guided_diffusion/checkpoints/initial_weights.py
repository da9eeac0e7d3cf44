"""Reading the weights of another training from a file, and loading them into the network of a new training."""

import hashlib
import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from torch import Tensor, nn

from guided_diffusion.checkpoints.files import LAST, Weights, available_weights, read_model_file, weights_of
from guided_diffusion.checkpoints.record import SavedModel, build_network
from guided_diffusion.data import kind_of
from guided_diffusion.utils.listing import first_few

State = Mapping[str, Tensor]

PREFIXES = {"diffusion": "denoiser.backbone.", "classifier": "classifier.backbone."}
"""The prefix of the names of the network's weights in a checkpoint, by the kind of its model."""
NEUTRAL_SETTINGS = ("dropout",)
"""The settings of a network that don't change what its weights mean."""
MAX_NAMES = 3
"""The most classes, or tensors, that a message names."""


@dataclass(frozen=True)
class InitialWeights:
    """The weights of a trained network and the record beside them. Nothing that the file names is imported or run."""

    saved: SavedModel
    weights: Weights
    """``ema``, or ``raw`` if the file holds no average."""
    state: State
    """The weights by their names in the network."""

    @classmethod
    def read(cls, path: Path) -> "InitialWeights":
        """Read the weights, averaged if there is an average, of a checkpoint, an exported model or the folder of a run.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file can't be used.
        """
        file = (path / LAST if path.is_dir() else path).absolute()
        saved = SavedModel(file, read_model_file(file))
        if "network" not in saved.config or "class_names" not in saved.record["data"]:
            raise ValueError(f"{file} does not say of which network and classes its weights are: choose another one")
        weights: Weights = "ema" if "ema" in available_weights(saved.content) else "raw"
        prefix = PREFIXES.get(saved.record["kind"], "")
        state = weights_of(weights, saved.content, file)
        return cls(saved, weights, {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)})

    @property
    def class_names(self) -> list[str]:
        return list(self.saved.record["data"]["class_names"])

    @cached_property
    def content(self) -> str:
        """A hash, of 16 hexadecimal digits, of the weights and the names of their classes."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for name, value in sorted(self.state.items()):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:16]

    def load_into(self, network: nn.Module, record: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """Load the weights into a network, in place.

        Where a tensor has a row for each class, such as the table of labels or a last layer, a class gets the row of
        the class with the same name. The rows of other classes keep the network's initial values.

        Args:
            record: The record of the new training, as ``make_record`` returns it.

        Returns:
            What the checkpoints of the new training record about these weights, and a line about it to print.

        Raises:
            ValueError: If the file holds a model of another kind, or its network is another one.
        """
        self.saved.check(record["kind"], (), ())
        _check_same_network(self.saved, record)
        state = network.state_dict()
        by_class = _tensors_by_class(state, record)
        _check_shapes(self.saved.path, self.state, state, by_class)
        new_rows: dict[str, list[str]] = {}
        classes = record["data"]["class_names"]
        for name, source in self.state.items():
            if name not in by_class:
                state[name] = source
            elif missing := _carry_rows(source, state[name], by_class[name], self.class_names, classes):
                new_rows[name] = missing
        network.load_state_dict(state)
        origin: dict[str, Any] = {
            "path": str(self.saved.path),
            "content": self.content,
            "weights": self.weights,
            "step": self.saved.content.get("global_step"),
            "data": self.saved.record["data"],
            "new": new_rows,
        }
        same_schedule = self.saved.config.get("schedule") == record["config"]["schedule"]
        return origin, _summary(origin, len(state), same_schedule)


def _summary(origin: dict[str, Any], count: int, same_schedule: bool) -> str:
    """Return the line that says which of the network's ``count`` tensors were carried over, and what is new."""
    step = "" if origin["step"] is None else f" of step {origin['step']}"
    partly = [f"{name} except for {first_few(classes, MAX_NAMES)}" for name, classes in origin["new"].items()]
    carried = ", ".join([f"{count - len(partly)} of {count} tensors", *partly])
    rows = "these rows, " if partly else ""
    note = "" if same_schedule else "; note: they were trained with another noise schedule"
    return (
        f"init_from: the {origin['weights']} weights{step} ({origin['data']['name']}) from {origin['path']}; carried "
        f"over: {carried}; new: {rows}the optimizer, the average of the weights and the step{note}"
    )


def _check_same_network(saved: SavedModel, record: dict[str, Any]) -> None:
    """Raise ``ValueError`` if the samples, the network's settings or its parameterization differ in what must agree."""
    theirs, ours = saved.record["data"]["shape"], record["data"]["shape"]
    if kind_of(theirs) != kind_of(ours) or theirs[0] != ours[0]:
        old_shape, new_shape = ("x".join(map(str, shape)) for shape in (theirs, ours))
        raise ValueError(
            f"init_from: {saved.path} is a model of samples of shape {old_shape}, and here they have {new_shape}: "
            "the number of channels must be the same"
        )
    target = get_object(record["config"]["network"]["_target_"])
    parameters = inspect.signature(target).parameters.values()
    defaults = {one.name: one.default for one in parameters if one.default is not one.empty}
    old, new = (_settings(config, defaults) for config in (saved.config, record["config"]))
    different = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
    if different:
        values = ", ".join(f"{key} ({old.get(key)} there, {new.get(key)} here)" for key in different)
        raise ValueError(f"init_from: the network in {saved.path} is another one; make equal: {values}")


def _settings(config: dict[str, Any], defaults: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a training that decide what the weights of its network mean."""
    network = {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    network |= config["network"]
    settings = {f"network.{key}": value for key, value in network.items() if key not in NEUTRAL_SETTINGS}
    return settings | {"module.parameterization": config["module"].get("parameterization")}


def _tensors_by_class(state: State, record: dict[str, Any]) -> dict[str, int]:
    """Return the axis of the rows of each tensor that has a row for each class, by the name of the tensor.

    Such a tensor has one row more in a network for one class more.
    """
    data = record["data"]
    with torch.random.fork_rng(devices=[]):
        larger = build_network(record["config"]["network"], tuple(data["shape"]), len(data["class_names"]) + 1)
    changes = {
        name: [more - size for more, size in zip(value.shape, state[name].shape, strict=True)]
        for name, value in larger.state_dict().items()
    }
    return {name: change.index(1) for name, change in changes.items() if 1 in change and sum(change) == 1}


def _check_shapes(path: Path, old: State, new: State, by_class: Mapping[str, int]) -> None:
    """Raise ``ValueError`` unless both have the same tensors with the same shapes, except for the rows of classes."""

    def shape(state: State, name: str) -> str:
        if name not in state:
            return "missing"
        sizes = list(state[name].shape)
        if name in by_class:
            sizes[by_class[name]] = -1
        return str(tuple(sizes))

    different = [name for name in (*new, *(old.keys() - new.keys())) if shape(old, name) != shape(new, name)]
    if different:
        shapes = [f"{name} ({shape(old, name)} there, {shape(new, name)} here)" for name in different]
        raise ValueError(f"init_from: the weights in {path} don't fit this network: {first_few(shapes, MAX_NAMES)}")


def _carry_rows(source: Tensor, target: Tensor, axis: int, old: list[str], new: list[str]) -> list[str]:
    """Copy the rows of the classes in both lists into ``target``; return the other classes of the new list.

    Rows after those of the classes, such as that of "no label", are copied too.
    """
    old_rows, rows = source.movedim(axis, 0), target.movedim(axis, 0)
    known = {name: index for index, name in enumerate(old)}
    for index, name in enumerate(new):
        if name in known:
            rows[index] = old_rows[known[name]]
    rows[len(new) :] = old_rows[len(old) :]
    return [name for name in new if name not in known]
