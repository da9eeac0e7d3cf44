"""The weights of another training as the start of a new one: reading them, and loading them into the new network."""

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

State = Mapping[str, Tensor]

PREFIXES = {"diffusion": "denoiser.backbone.", "classifier": "classifier.backbone."}
"""What the names of the network's weights begin with in a checkpoint, by the kind of its model."""
MAY_DIFFER = ("dropout",)
"""The settings of a network that don't change what its weights mean."""
MAX_NAMES = 3
"""The number of classes, or of tensors, that a message names."""


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
        """Read the averaged weights of a checkpoint, of an exported model, or of the last checkpoint of a run.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file can't be used.
        """
        file = (path / LAST if path.is_dir() else path).absolute()
        saved = SavedModel(file, read_model_file(file))
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
        origin: dict[str, Any] = {"path": str(self.saved.path), "content": self.content, "weights": self.weights}
        origin |= {"step": self.saved.content.get("global_step"), "data": self.saved.record["data"], "new": new_rows}
        same_schedule = self.saved.config.get("schedule") == record["config"]["schedule"]
        return origin, _summary(origin, len(state), same_schedule)


def _summary(origin: dict[str, Any], count: int, same_schedule: bool) -> str:
    step = "" if origin["step"] is None else f" of step {origin['step']}"
    partly = [f"{name} except for {_shortened(classes)}" for name, classes in origin["new"].items()]
    return (
        f"init_from: the {origin['weights']} weights{step} ({origin['data']['name']}) from {origin['path']}; carried "
        f"over: {', '.join([f'{count - len(partly)} of {count} tensors', *partly])}; new: "
        f"{'these rows, ' if partly else ''}the optimizer, the average of the weights and the step"
        f"{'' if same_schedule else '; note: they were trained with another noise schedule'}"
    )


def _check_same_network(saved: SavedModel, record: dict[str, Any]) -> None:
    """Raise ``ValueError`` if the samples have other channels, or the network or its output is another one."""
    theirs, ours = saved.record["data"]["shape"], record["data"]["shape"]
    if kind_of(theirs) != kind_of(ours) or theirs[0] != ours[0]:
        shapes = ("x".join(map(str, shape)) for shape in (theirs, ours))
        raise ValueError(
            "init_from: {} is a model of samples of shape {}, and here they have {}: the number of channels must be "
            "the same".format(saved.path, *shapes)
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
    network = defaults | config["network"]
    settings = {f"network.{key}": _as_list(value) for key, value in network.items() if key not in MAY_DIFFER}
    return settings | {"module.parameterization": config["module"].get("parameterization")}


def _as_list(value: Any) -> Any:
    return list(value) if type(value) is tuple else value


def _tensors_by_class(state: State, record: dict[str, Any]) -> dict[str, int]:
    """Return the names of the tensors that have a row for each class, with the axis of the rows.

    They are those that have one row more in a network for one class more.
    """
    data = record["data"]
    with torch.random.fork_rng(devices=[]):
        larger = build_network(record["config"]["network"], tuple(data["shape"]), len(data["class_names"]) + 1)
    changes = {
        name: [more - size for more, size in zip(value.shape, state[name].shape, strict=True)]
        for name, value in larger.state_dict().items()
    }
    return {name: change.index(1) for name, change in changes.items() if 1 in change and sum(change) == 1}


def _check_shapes(
    path: Path, old: Mapping[str, Tensor], new: Mapping[str, Tensor], by_class: Mapping[str, int]
) -> None:
    """Raise ``ValueError`` unless both have the same tensors with the same shapes, except for the rows of classes."""

    def shape(state: Mapping[str, Tensor], name: str) -> str:
        if name not in state:
            return "missing"
        sizes = list(state[name].shape)
        if name in by_class:
            sizes[by_class[name]] = -1
        return str(tuple(sizes))

    different = [name for name in (*new, *(old.keys() - new.keys())) if shape(old, name) != shape(new, name)]
    if different:
        pairs = (f"{name} ({shape(old, name)} there, {shape(new, name)} here)" for name in different[:MAX_NAMES])
        more = f" and {len(different) - MAX_NAMES} more" if len(different) > MAX_NAMES else ""
        raise ValueError(f"init_from: the weights in {path} don't fit this network: {', '.join(pairs)}{more}")


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


def _shortened(names: list[str]) -> str:
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more} more" if more > 0 else "")
