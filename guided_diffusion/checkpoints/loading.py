"""Trained models from their checkpoints, rebuilt from the config inside and never from today's defaults."""

from __future__ import annotations

import importlib
import inspect
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig
from torch import Tensor, nn

from guided_diffusion.checkpoints.compatibility import VALUE_RANGE, ModelSpec, check_match
from guided_diffusion.checkpoints.files import Weights, read_model_file, weights_of
from guided_diffusion.checkpoints.guidance_config import (
    classifier_checkpoint,
    guidance_needs_classifier,
    rename_former_target,
)
from guided_diffusion.classifiers import Classifier
from guided_diffusion.data import LabelledDataModule, kind_of
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.instantiate import build

FORMAT = 1
"""Of the record in a checkpoint; raised when an older one can't be read as it is."""


SIZES = {"images": ("channels", "image_size"), "points": ("dimensions",)}
"""What a network calls the sizes of its samples, in the order of their shape."""


NAMES = {"diffusion": "diffusion model", "classifier": "time-aware classifier"}
"""Kinds of models, as messages call them."""


TRUSTED = ("guided_diffusion.",)


def check_guidance(node: DictConfig | dict[str, Any], spec: ModelSpec) -> None:
    """Raise ``ValueError`` if a guidance needs a classifier and names none, or one that does not match the model."""
    if not guidance_needs_classifier(node):
        return
    path = classifier_checkpoint(node)
    if not path:
        raise ValueError("guidance.classifier is missing: add guidance.classifier=PATH, the checkpoint of a classifier")
    check_match(spec, read_spec(path, "classifier"))


@dataclass(frozen=True)
class Trained:
    """What is known of a trained model."""

    spec: ModelSpec
    config: dict[str, Any]
    """The whole resolved config of the training."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one sample: channels, height, width of an image, coordinates of a point."""
        return self.spec.shape

    @property
    def kind(self) -> str:
        """``images`` or ``points``."""
        return kind_of(self.shape)

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.spec.class_names

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def schedule(self) -> Schedule:
        return self.spec.schedule

    @property
    def label_dropout(self) -> float:
        """With which it was trained; a model that is told its labels always, or never, can't be guided by them."""
        return float(self.config["module"].get("label_dropout", 0.1))

    def data(self, trusted: tuple[str, ...] = TRUSTED) -> LabelledDataModule:
        """The data of the training; in the folder ``GUIDED_DIFFUSION_DATA`` if that is set, else where it was."""
        node = dict(self.config["data"])
        _check_targets(node, trusted, Path(self.spec.source))
        if "root" in node:
            node["root"] = os.environ.get("GUIDED_DIFFUSION_DATA") or node["root"]
        data: LabelledDataModule = build(node)
        data.prepare_data()
        return data


@dataclass(frozen=True)
class TrainedDiffusion(Trained):
    """A trained denoiser, in eval mode."""

    denoiser: Denoiser


@dataclass(frozen=True)
class TrainedClassifier(Trained):
    """A trained time-aware classifier, in eval mode: ``classifier(x_t, t) -> logits``, on the device of ``x_t``."""

    classifier: Classifier

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.classifier.to(x_t.device)(x_t, t)


def make_record(kind: str, config: dict[str, Any], data: LabelledDataModule) -> dict[str, Any]:
    """What a checkpoint holds beside the weights: plain data, from which ``load`` rebuilds the model."""
    return {
        "format": FORMAT,
        "kind": kind,
        "config": config,
        "data": {
            "name": data.name,
            "shape": list(data.shape),
            "class_names": list(data.class_names),
            "range": list(VALUE_RANGE),
        },
    }


def build_network(node: DictConfig | dict[str, Any], shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """The network of a config node, for samples of this shape and this many classes.

    Raises:
        ValueError: if it can't be made, for instance because it is for images and these are points.
    """
    kind = kind_of(shape)
    sizes = dict(zip(SIZES[kind], shape, strict=False))  # images are square: their height says it
    try:
        inspect.signature(get_object(node["_target_"])).bind_partial(**sizes)
    except TypeError as error:
        raise ValueError(f"network: {node['_target_']} is not for {kind}: it {error}") from error
    return build(node, **sizes, num_classes=num_classes)


def load(
    checkpoint: str | Path,
    device: str | torch.device = "cpu",
    weights: Weights = "ema",
    trusted: tuple[str, ...] = TRUSTED,
) -> TrainedDiffusion:
    """The diffusion model of a checkpoint that ``train`` wrote, or of what ``export`` made of one.

    Args:
        checkpoint: path of the file.
        device: where the model goes.
        weights: ``ema``, or ``raw`` for those that training went on with; the same where it had no ``EMA``.
        trusted: what the names of the classes in the checkpoint's config may start with. Add your own
            package to load a network of yours; a file can then run what that package offers, and no more.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, or no diffusion model of this package.
    """
    saved = _Saved.read(Path(checkpoint), "diffusion", device)
    saved.check_config(("network", "schedule", "guidance", "threshold", "sampler"), trusted)
    denoiser = Denoiser(saved.network(), saved.schedule(), saved.config["module"]["parameterization"])
    saved.load_weights(denoiser, "denoiser.", weights)
    return TrainedDiffusion(saved.spec(), saved.config, denoiser.to(device).eval())


def load_classifier(
    checkpoint: str | Path,
    device: str | torch.device = "cpu",
    weights: Weights = "ema",
    trusted: tuple[str, ...] = TRUSTED,
) -> TrainedClassifier:
    """The time-aware classifier of a checkpoint that ``train`` wrote; arguments and errors as for ``load``."""
    saved = _Saved.read(Path(checkpoint), "classifier", device)
    saved.check_config(("network", "schedule"), trusted)
    with torch.inference_mode(False):  # weights made in inference mode could not be part of a gradient
        classifier = Classifier(saved.network(), saved.schedule()).requires_grad_(False)
        saved.load_weights(classifier, "classifier.", weights)
        return TrainedClassifier(saved.spec(), saved.config, classifier.to(device).eval())


def read_spec(checkpoint: str | Path, kind: str, trusted: tuple[str, ...] = TRUSTED) -> ModelSpec:
    """What the model of a checkpoint is for, without the model; errors as for ``load``."""
    saved = _Saved.read(Path(checkpoint), kind, "cpu")
    saved.check_config(("schedule",), trusted)
    return saved.spec()


def optional_classifier(checkpoint: str | None) -> TrainedClassifier | None:
    """Return the classifier of a checkpoint; ``None`` for none, where a classifier in training will guide."""
    return load_classifier(checkpoint) if checkpoint else None


@dataclass(frozen=True)
class _Saved:
    """The content of a checkpoint, known to be one of ours."""

    path: Path
    content: dict[str, Any]

    @classmethod
    def read(cls, path: Path, kind: str, device: str | torch.device) -> _Saved:
        try:
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ValueError(f"device {device} can't be used: {str(error).splitlines()[0]}") from error
        content = read_model_file(path)
        record = content["guided_diffusion"]
        if record["kind"] != kind:
            raise ValueError(
                f"{path} is the checkpoint of a {NAMES.get(record['kind'], 'model')}, not of a {NAMES[kind]}"
            )
        if record["format"] > FORMAT:
            raise ValueError(f"{path} was written by a newer version of guided_diffusion: update this one to read it")
        if isinstance(guidance := record["config"].get("guidance"), dict):
            rename_former_target(guidance)
        return cls(path, content)

    @property
    def config(self) -> dict[str, Any]:
        return self.content["guided_diffusion"]["config"]

    @property
    def data(self) -> dict[str, Any]:
        return self.content["guided_diffusion"]["data"]

    def check_config(self, built: tuple[str, ...], trusted: tuple[str, ...]) -> None:
        """Refuse a config without the parts that will be built from it, or that names what is not trusted."""
        for key in (*built, "module"):
            if not isinstance(self.config.get(key), dict):
                raise ValueError(f"{self.path} is not a checkpoint of guided_diffusion: its config has no {key}")
        for key in built:
            _check_targets(self.config[key], trusted, self.path)

    def schedule(self) -> Schedule:
        return build(self.config["schedule"])

    def network(self) -> nn.Module:
        return build_network(self.config["network"], tuple(self.data["shape"]), len(self.data["class_names"]))

    def spec(self) -> ModelSpec:
        return ModelSpec(
            str(self.path),
            self.schedule(),
            tuple(self.data["shape"]),
            tuple(self.data["class_names"]),
            tuple(self.data.get("range", VALUE_RANGE)),
        )

    def load_weights(self, model: nn.Module, prefix: str, weights: Weights) -> None:
        state = weights_of(weights, self.content, self.path)
        try:
            model.load_state_dict({key.removeprefix(prefix): value for key, value in state.items()})
        except RuntimeError as error:
            raise ValueError(f"the weights in {self.path} don't fit the network of its config: {error}") from error


def _check_targets(node: Any, trusted: tuple[str, ...], path: Path) -> None:
    """Refuse, at any depth, what is not defined in a trusted package; being imported there is not enough."""
    for value in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _check_targets(value, trusted, path)
    if isinstance(node, dict) and "_target_" in node:
        target = str(node["_target_"])
        module, _, name = target.rpartition(".")
        try:
            source = getattr(importlib.import_module(module), name).__module__ if target.startswith(trusted) else ""
        except (ImportError, AttributeError):
            source = ""
        if not f"{source}.".startswith(trusted):
            raise ValueError(f"{path} wants to run {target}: name its package in trusted= if you know it")
