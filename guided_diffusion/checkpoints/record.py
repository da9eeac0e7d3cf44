"""The record of a model in its checkpoint: writing it, and rebuilding the network and the schedule from it."""

import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig
from torch import nn

from guided_diffusion.checkpoints.files import Weights, read_model_file, weights_of
from guided_diffusion.data import LabelledDataModule, kind_of, network_sizes
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.instantiate import build

FORMAT = 1
"""The format of the record. It is incremented when older records can no longer be read as they are."""
VALUE_RANGE = (-1.0, 1.0)
"""The range of the pixels, or the coordinates, that every model of this package takes."""
TRUSTED = tuple(f"guided_diffusion.{name}." for name in ("data", "guidance", "networks", "samplers", "schedules"))
"""The prefixes of the names of objects that a record may build, unless the caller trusts more packages."""
LOADERS = tuple(f"guided_diffusion.checkpoints.optional_{model}" for model in ("classifier", "weak_model"))
"""The other functions that a record may call, with a path alone: the checkpoint there is checked in the same way."""
MODEL_NAMES = {"diffusion": "diffusion model", "classifier": "time-aware classifier"}
"""The kinds of models, as messages call them."""


def make_record(kind: str, config: dict[str, Any], data: LabelledDataModule) -> dict[str, Any]:
    """Return the plain data that a checkpoint holds beside the weights, from which ``load`` rebuilds the model.

    ``kind`` is one of ``MODEL_NAMES``; ``config`` and ``data`` are the resolved config and the data of the training.
    """
    shape, class_names = list(data.shape), list(data.class_names)
    described = {"name": data.name, "shape": shape, "class_names": class_names, "range": list(VALUE_RANGE)}
    return {"format": FORMAT, "kind": kind, "config": config, "data": described}


def build_network(node: DictConfig | dict[str, Any], shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network of a config node, for samples of this shape and this many classes.

    Raises:
        ValueError: If it can't be built, for instance because it takes images and the samples are points.
    """
    sizes = network_sizes(shape)
    try:
        inspect.signature(get_object(node["_target_"])).bind_partial(**sizes)
    except TypeError as error:
        raise ValueError(f"network: {node['_target_']} is not for {kind_of(shape)}: it {error}") from error
    return build(node, **sizes, num_classes=num_classes)


def check_targets(node: Any, trusted: Sequence[str], path: Path) -> None:
    """Raise ``ValueError`` if a plain config node names, at any depth, an object that no trusted package defines.

    Args:
        trusted: The names of packages, such as ``my_package``, that are trusted besides ``TRUSTED``. An object that a
            trusted module only imports is not trusted.
        path: The file that the node is from, for messages.
    """
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        check_targets(value, trusted, path)
    if not isinstance(node, dict) or "_target_" not in node:
        return
    if node["_target_"] not in LOADERS or node.keys() != {"_target_", "checkpoint"}:
        _check_target(str(node["_target_"]), (*TRUSTED, *(f"{name.rstrip('.')}." for name in trusted)), path)


def _check_target(target: str, prefixes: tuple[str, ...], path: Path) -> None:
    """Raise ``ValueError`` unless an object's name and the module that defines it both have a trusted prefix."""
    module, _, name = target.rpartition(".")
    has_trusted_name, source = target.startswith(prefixes), module
    if has_trusted_name:
        try:
            source = getattr(importlib.import_module(module), name).__module__
        except (ImportError, AttributeError) as error:
            raise ValueError(
                f"{path} needs {target}, which can't be imported: {error}; add the folder of its package to PYTHONPATH"
            ) from error
    if not (has_trusted_name and f"{source}.".startswith(prefixes)):
        package = source.partition(".")[0] or target
        if package == __name__.partition(".")[0]:
            remedy = "no model of this package needs that, so don't use the file"
        else:
            remedy = f"add trusted=[{package}] if you know where the file is from and what that package does"
        raise ValueError(f"{path} wants to run {target}, which is no part of a model of guided_diffusion: {remedy}")


@dataclass(frozen=True)
class ModelSpec:
    """The properties that two models must share to work together."""

    source: str
    """The file or training that the model is from, for messages."""
    schedule: Schedule
    shape: tuple[int, ...]
    """The shape of one sample: channels, height and width of an image, or the number of coordinates of a point."""
    class_names: tuple[str, ...]
    value_range: tuple[float, float] = VALUE_RANGE


@dataclass(frozen=True)
class SavedModel:
    """The content of a file of this package, before its model is rebuilt."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, checkpoint: str | Path, kind: str, built: tuple[str, ...], trusted: Sequence[str]) -> "SavedModel":
        """Read a file and check that its record is of this kind, and that its config can be trusted.

        The config must have the keys ``built``, whose nodes may name only objects that ``check_targets`` allows.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file or its record can't be used.
        """
        path = Path(checkpoint)
        saved = cls(path, read_model_file(path))
        saved.check(kind, built, trusted)
        return saved

    def check(self, kind: str, built: tuple[str, ...], trusted: Sequence[str]) -> None:
        """Raise ``ValueError`` if the record can't be used; the arguments are those of ``read``."""
        path, record = self.path, self.record
        if record["kind"] != kind:
            found = MODEL_NAMES.get(record["kind"], "model")
            raise ValueError(f"{path} is the checkpoint of a {found}, not of a {MODEL_NAMES[kind]}")
        if record["format"] > FORMAT:
            raise ValueError(f"{path} was written by a newer version of guided_diffusion: update this one to read it")
        for key in (*built, "module"):
            if not isinstance(record["config"].get(key), dict):
                raise ValueError(f"{path} is not a checkpoint of guided_diffusion: its config has no {key}")
        for key in built:
            check_targets(record["config"][key], trusted, path)

    @property
    def record(self) -> dict[str, Any]:
        """The record that ``make_record`` made in the training."""
        return self.content["guided_diffusion"]

    @property
    def config(self) -> dict[str, Any]:
        return self.record["config"]

    @cached_property
    def spec(self) -> ModelSpec:
        data = self.record["data"]
        shape, class_names, value_range = data["shape"], data["class_names"], data.get("range", VALUE_RANGE)
        schedule = build(self.config["schedule"])
        return ModelSpec(str(self.path), schedule, tuple(shape), tuple(class_names), tuple(value_range))

    def network(self) -> nn.Module:
        """Build the network, with its initial weights."""
        return build_network(self.config["network"], self.spec.shape, len(self.spec.class_names))

    def load_weights(self, model: nn.Module, prefix: str, weights: Weights) -> None:
        """Load one set of weights into ``model``; ``prefix`` is what their names begin with in the file."""
        state = weights_of(weights, self.content, self.path)
        try:
            model.load_state_dict({key.removeprefix(prefix): value for key, value in state.items()})
        except RuntimeError as error:
            raise ValueError(f"the weights in {self.path} don't fit the network of its config: {error}") from error
