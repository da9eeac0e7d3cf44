"""Trained models from their checkpoints, rebuilt from the config inside and never from today's defaults."""

from __future__ import annotations

import importlib
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from omegaconf import DictConfig

from guided_diffusion.config import build
from guided_diffusion.data import ImageDataModule
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.schedules import Schedule

FORMAT = 1
"""Of the record in a checkpoint; raised when an older one can't be read as it is."""


@dataclass(frozen=True)
class TrainedDiffusion:
    """A trained denoiser, in eval mode, with what is known of its data."""

    denoiser: Denoiser
    shape: tuple[int, int, int]
    """Of one image: channels, height, width."""
    class_names: tuple[str, ...]
    config: dict[str, Any]
    """The whole resolved config of the training."""

    @property
    def schedule(self) -> Schedule:
        return self.denoiser.schedule

    @property
    def num_classes(self) -> int:
        return len(self.class_names)


def make_record(config: dict[str, Any], data: ImageDataModule) -> dict[str, Any]:
    """What a checkpoint holds beside the weights: plain data, from which ``load`` rebuilds the model."""
    return {
        "format": FORMAT,
        "kind": "diffusion",
        "config": config,
        "data": {"name": data.name, "shape": list(data.shape), "class_names": list(data.class_names)},
    }


def build_network(node: DictConfig | dict[str, Any], shape: tuple[int, int, int], num_classes: int) -> torch.nn.Module:
    """The network of a config node, for images of this shape and this many classes."""
    return build(node, channels=shape[0], image_size=shape[1], num_classes=num_classes)


def load(
    checkpoint: str | Path,
    device: str | torch.device = "cpu",
    weights: Literal["ema", "raw"] = "ema",
    trusted: tuple[str, ...] = ("guided_diffusion.",),
) -> TrainedDiffusion:
    """The model of a checkpoint that ``train`` wrote.

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
    path = Path(checkpoint)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path.absolute()}")
    if weights not in ("ema", "raw"):
        raise ValueError(f"weights must be ema or raw, got {weights!r}")
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device} can't be used: {str(error).splitlines()[0]}") from error
    saved = _read(path)
    record = saved["guided_diffusion"]
    if record["kind"] != "diffusion":
        raise ValueError(f"{path} is the checkpoint of a {record['kind']}, not of a diffusion model")
    if record["format"] > FORMAT:
        raise ValueError(f"{path} was written by a newer version of guided_diffusion: update this one to read it")
    config, data = record["config"], record["data"]
    for key in ("network", "schedule", "module", "guidance", "threshold", "sampler"):
        if not isinstance(config.get(key), dict):
            raise ValueError(f"{path} is not a checkpoint of guided_diffusion: its config has no {key}")
    for key in ("network", "schedule", "guidance", "threshold", "sampler"):
        _check_targets(config[key], trusted, path)

    shape = tuple(data["shape"])
    network = build_network(config["network"], shape, len(data["class_names"]))
    denoiser = Denoiser(network, build(config["schedule"]), config["module"]["parameterization"])
    state = saved["state_dict"] if weights == "ema" else saved.get("current_model_state", saved["state_dict"])
    try:
        denoiser.load_state_dict({key.removeprefix("denoiser."): value for key, value in state.items()})
    except RuntimeError as error:
        raise ValueError(f"the weights in {path} don't fit the network of its config: {error}") from error
    return TrainedDiffusion(denoiser.to(device).eval(), shape, tuple(data["class_names"]), config)


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


def _read(path: Path) -> dict[str, Any]:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not a checkpoint, or holds code, which is not loaded") from error
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise ValueError(f"{path} is damaged or not a checkpoint: {reason}") from error
    if not isinstance(saved, dict) or not saved.get("guided_diffusion"):
        raise ValueError(f"{path} is not a checkpoint of guided_diffusion")
    return saved
