"""Rebuilding trained models from their checkpoints, with the config stored in them and never with today's defaults."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from torch import Tensor
from torch.types import Device

from guided_diffusion.checkpoints.files import Weights
from guided_diffusion.checkpoints.guidance_config import AUTO
from guided_diffusion.checkpoints.judge_file import JudgeClassifier, holds_judge, load_judge
from guided_diffusion.checkpoints.record import ModelSpec, SavedModel, check_targets
from guided_diffusion.classifiers import Classifier
from guided_diffusion.data import LabelledDataModule, kind_of
from guided_diffusion.denoisers import Denoiser, Labels, Prediction
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.instantiate import build
from guided_diffusion.utils.listing import first_few


@dataclass(frozen=True)
class Trained:
    """A trained model's properties and the config of its training."""

    spec: ModelSpec
    config: dict[str, Any]
    """The whole resolved config of the training."""
    trusted: Sequence[str] = field(default=(), kw_only=True)
    """The packages of the user that the checkpoint's config may name."""

    @property
    def shape(self) -> tuple[int, ...]:
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
        """The label dropout of the training. At 0 or 1, classifier-free guidance lacks one prediction."""
        return float(self.config["module"].get("label_dropout", 0.1))

    def data(self, trusted: Sequence[str] = (), path: str | None = None) -> LabelledDataModule:
        """Return the data of the training.

        Args:
            trusted: Packages that the checkpoint may name, besides those that ``load`` was given.
            path: The folder or file where the data is now. The default is the place that it had in the training; for
                a folder of datasets, ``GUIDED_DIFFUSION_DATA`` comes first if it is set.

        Raises:
            FileNotFoundError, ValueError: If the data is not there, has other shapes or classes than the model, or is
                made without files although there is a ``path``.
        """
        node = dict(self.config["data"])
        check_targets(node, (*self.trusted, *trusted), Path(self.spec.source))
        if path and not {"root", "path"} & node.keys():
            raise ValueError(f"data_path has no effect: {node['_target_'].rpartition('.')[2]} reads no files")
        holds_datasets = "root" in node and get_object(node["_target_"]).root_holds_datasets
        moved = path or (os.environ.get("GUIDED_DIFFUSION_DATA") if holds_datasets else None)
        if moved:
            node |= {key: moved for key in ("root", "path") if key in node}
        data: LabelledDataModule = build(node)
        if (tuple(data.shape), tuple(data.class_names)) != (self.shape, self.class_names):
            raise ValueError(
                f"{data.name} has samples of shape {tuple(data.shape)} and the classes {first_few(data.class_names)}, "
                f"but the model was trained on samples of shape {self.shape} and the classes "
                f"{first_few(self.class_names)}: choose that data, in evaluate with data_path"
            )
        data.prepare_data()
        return data


@dataclass(frozen=True)
class TrainedDiffusion(Trained):
    """A trained denoiser, in eval mode: ``model(x_t, t, y) -> Prediction``, on the device of ``x_t``."""

    denoiser: Denoiser

    def __call__(self, x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        return self.denoiser.to(x_t)(x_t, t, y)


@dataclass(frozen=True)
class TrainedClassifier(Trained):
    """A trained time-aware classifier, in eval mode: ``classifier(x_t, t) -> logits``, on the device of ``x_t``."""

    classifier: Classifier

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self.classifier.to(x_t)(x_t, t)


def load(
    checkpoint: str | Path, device: Device = "cpu", weights: Weights = "ema", trusted: Sequence[str] = ()
) -> TrainedDiffusion:
    """Return the diffusion model of a checkpoint that ``train`` wrote, or of a file that ``export`` wrote.

    Args:
        weights: ``ema``, or ``raw`` for the weights that the optimizer updates; both are the same without ``EMA``.
        trusted: The names of your own packages from which the checkpoint's config may take a network, data or other
            parts of the model, for instance ``["my_package"]``. A file can run what they offer, and no more.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the file is damaged or holds no diffusion model of this package, or the device can't be used.
    """
    _check_device(device)
    built = ("network", "schedule", "guidance", "threshold", "sampler")
    saved = SavedModel.read(checkpoint, "diffusion", built, trusted)
    denoiser = Denoiser(saved.network(), saved.spec.schedule, saved.config["module"]["parameterization"])
    saved.load_weights(denoiser, "denoiser.", weights)
    return TrainedDiffusion(saved.spec, saved.config, denoiser.to(device).eval(), trusted=tuple(trusted))


def load_classifier(
    checkpoint: str | Path, device: Device = "cpu", weights: Weights = "ema", trusted: Sequence[str] = ()
) -> TrainedClassifier:
    """Return the time-aware classifier of a checkpoint; the arguments and errors are those of ``load``."""
    _check_device(device)
    saved = SavedModel.read(checkpoint, "classifier", ("network", "schedule"), trusted)
    with torch.inference_mode(False):  # weights made in inference mode could not be part of a gradient
        classifier = Classifier(saved.network(), saved.spec.schedule).requires_grad_(False)
        saved.load_weights(classifier, "classifier.", weights)
        return TrainedClassifier(saved.spec, saved.config, classifier.to(device).eval(), trusted=tuple(trusted))


def optional_classifier(
    checkpoint: str | None, trusted: Sequence[str] = ()
) -> TrainedClassifier | JudgeClassifier | None:
    """Return the classifier of a checkpoint or of a judge's file, or ``None``: the guidance gets it later.

    That is so if the classifier in training is to guide, and for ``auto``, a classifier that may have to be trained.
    """
    if checkpoint is None or checkpoint == AUTO:
        return None
    return load_judge(checkpoint) if holds_judge(checkpoint) else load_classifier(checkpoint, trusted=trusted)


def optional_weak_model(checkpoint: str | None, trusted: Sequence[str] = ()) -> TrainedDiffusion | None:
    """Return the diffusion model of a checkpoint, with its averaged weights, or ``None`` without one."""
    return load(checkpoint, trusted=trusted) if checkpoint else None


@dataclass(frozen=True)
class LateClassifier:
    """The classifier of a checkpoint that is read at the first call, as it may be written only until then.

    The arguments are those of ``load_classifier``.
    """

    checkpoint: str
    trusted: Sequence[str] = ()

    def __call__(self, x_t: Tensor, t: Tensor) -> Tensor:
        return self._loaded(x_t, t)

    @cached_property
    def _loaded(self) -> TrainedClassifier:
        return load_classifier(self.checkpoint, trusted=self.trusted)


def _check_device(device: Device) -> None:
    """Raise ``ValueError`` if no tensor can be made on this device."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"device {device} can't be used: {str(error).splitlines()[0]}") from error
