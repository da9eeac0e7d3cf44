"""Files of judges, the classifiers of clean images that measure samples, and that guide only where it is allowed."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from guided_diffusion.checkpoints.record import ModelSpec
from guided_diffusion.data import network_sizes
from guided_diffusion.networks.judge import ARCHITECTURES
from guided_diffusion.schedules import Samples, Schedule, Times
from guided_diffusion.utils.files import load_tensors


@dataclass(frozen=True)
class JudgeClassifier:
    """A judge as a classifier, ``judge(x0, t) -> logits``, on the device of ``x0``; it takes every x0 for clean."""

    is_judge: ClassVar[bool] = True

    network: nn.Module

    def __call__(self, x0: Samples, t: Times) -> Float[Tensor, "b classes"]:
        return self.network.to(x0)(x0)


def holds_judge(path: str | Path) -> bool:
    """Return whether a file holds a judge; ``False`` if it can't be read."""
    try:
        saved = load_tensors(Path(path), mmap=True)
    except ValueError:
        return False
    return isinstance(saved, dict) and saved.keys() >= {"judge", "width"}


def build_judge(architecture: str, shape: tuple[int, ...], num_classes: int, width: int) -> nn.Module:
    """Return the network of a judge, with its initial weights, for images of this shape."""
    sizes: dict[str, Any] = dict(network_sizes(shape))
    return ARCHITECTURES[architecture](**sizes, num_classes=num_classes, width=width)


def judge_network(saved: Mapping[str, Any], shape: tuple[int, ...], num_classes: int) -> nn.Module:
    """Return the network in the content of a judge's file, in eval mode.

    Raises:
        KeyError, RuntimeError: If the content is of no judge, or of one for other images or classes.
    """
    architecture = saved.get("architecture", "cnn")  # older files do not name it
    network = build_judge(architecture, shape, num_classes, saved["width"])
    network.load_state_dict(saved["judge"])
    return network.eval()


def load_judge(path: str | Path) -> JudgeClassifier:
    """Return the judge of a file as a classifier, with frozen weights; raises the errors of ``judge_spec``."""
    saved = _read(Path(path))
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        network = judge_network(saved, tuple(saved["shape"]), len(saved["class_names"]))
        return JudgeClassifier(network.requires_grad_(False))


def judge_spec(path: str | Path, schedule: Schedule) -> ModelSpec:
    """Return the properties of the judge in a file, with a schedule, as it suits every one.

    Raises:
        ValueError: If the file was written by a version that did not note the images that the judge is for.
    """
    saved = _read(Path(path))
    return ModelSpec(str(path), schedule, tuple(saved["shape"]), tuple(saved["class_names"]))


def _read(path: Path) -> dict[str, Any]:
    saved: dict[str, Any] = load_tensors(path)
    if not saved.keys() >= {"shape", "class_names"}:
        raise ValueError(f"{path} was written by an earlier version: delete it, and evaluate trains that judge again")
    return saved
