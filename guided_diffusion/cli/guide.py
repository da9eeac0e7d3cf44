"""``classifier=auto``: the classifier that guides is found beside the run of the diffusion model, or trained there."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from guided_diffusion.checkpoints.guidance_config import guidance_wants_guide
from guided_diffusion.checkpoints.loading import TrainedDiffusion
from guided_diffusion.checkpoints.record import ModelSpec, SavedModel, make_record
from guided_diffusion.checkpoints.renamed import update_targets
from guided_diffusion.data import LabelledDataModule
from guided_diffusion.recipe import Recipe
from guided_diffusion.training.guide import GuideTraining
from guided_diffusion.training.resume.run_files import config_of
from guided_diffusion.utils.files import atomic_write, cache_dir, check_writable, content_hash, save_tensors
from guided_diffusion.utils.instantiate import build
from guided_diffusion.utils.locks import file_lock
from guided_diffusion.utils.precision import fast_precision

FOLDER = "guide"
"""The folder, in that of a run, with the classifiers that were trained to guide its model."""
PARTS = ("guide", "data", "schedule")
"""The keys of a config that decide what a guide learns."""
NOT_LEARNT = ("batch_size", "num_workers", "seed")
"""The settings of data that change nothing for a guide, which has a batch size and a seed of its own."""


@dataclass(frozen=True)
class Guide:
    """The classifier of ``classifier=auto`` for one diffusion model: what it learns, and where it is kept."""

    spec: ModelSpec
    """The properties of the diffusion model."""
    config: dict[str, Any]
    """The nodes of ``PARTS``, as plain data."""
    run: Path | None
    """The folder of the model's run; ``None`` if the model is elsewhere."""
    accelerator: str = "cpu"
    """The accelerator of the trainer, such as ``auto``."""
    trusted: Sequence[str] = ()
    """The user's packages that the checkpoint may name."""

    @property
    def name(self) -> str:
        """The name of the file, with a hash of everything that the classifier depends on."""
        return f"{_key(self.config, self.spec)}.ckpt"

    @property
    def path(self) -> Path:
        """The path of the file: in the folder of the run, or in the cache if there is none that can be written."""
        if self.run is None:
            return self._cached
        path = self.run / FOLDER / self.name
        try:
            if not path.is_file():
                check_writable(path.parent, "output_dir")
        except OSError:
            return self._cached
        return path

    @property
    def _cached(self) -> Path:
        return cache_dir() / "guides" / self.name

    def check(self) -> None:
        """Raise an error if the classifier can't be trained or read, as far as can be known before.

        Raises:
            ValueError: If its network or its times are for other samples or another schedule, or a file at its path is
                damaged.
            OSError: If it would be kept in the cache, which can't be written.
        """
        training = build_training(self.config["guide"])
        training.build(self.spec.shape, len(self.spec.class_names))
        training.check_times(self.spec.schedule)
        if not self.is_trained(self.path):
            check_writable(self.path.parent, "the cache (GUIDED_DIFFUSION_CACHE)")

    def is_trained(self, path: Path) -> bool:
        """Return whether the file at ``path`` holds this classifier; raise ``ValueError`` if it can't be read."""
        if not path.is_file():
            return False
        try:
            saved = SavedModel.read(path, "classifier", ("network", "schedule"), self.trusted)
        except ValueError as error:
            raise ValueError(f"{error}; or delete {path}, and the classifier is trained anew") from error
        return saved.config.keys() >= set(PARTS) and f"{_key(saved.config, saved.spec)}.ckpt" == self.name

    def find_or_train(self, load_data: Callable[[], LabelledDataModule], others: Sequence[Path] = ()) -> Path:
        """Return the path of the file, which is trained if it is missing; other processes wait for it.

        Args:
            load_data: A function that returns the data of the diffusion model, which only a training needs.
            others: The folders of other runs; the file is copied if one of them, or the cache, has it.
        """
        path = self.path
        if self.is_trained(path):
            return path
        with file_lock(path.with_suffix(".lock"), "another process trains the classifier that guides"):
            if self.is_trained(path):
                return path
            places = [self._cached, *(run / FOLDER / self.name for run in others)]
            found = next(filter(self.is_trained, places), None)
            if found:
                with atomic_write(path) as temporary:
                    shutil.copyfile(found, temporary)
            else:
                save_tensors(self._train(load_data(), path), path)
        return path

    def _train(self, data: LabelledDataModule, path: Path) -> dict[str, Any]:
        """Train the classifier and return the content of its checkpoint."""
        settings = self.config["guide"]
        training = build_training(settings)
        why = ", as the model has no folder of a run that can be written" if path == self._cached else ""
        print(f"training a classifier to guide: {training.steps} steps on {data.name}, kept in {path}{why}", flush=True)
        device = "cuda" if self.accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu"
        classifier = training(data, self.spec.schedule, device, fast_precision(self.accelerator) == "bf16-mixed")
        network = {key: value for key, value in settings["network"].items() if key != "_partial_"}
        module = {"_target_": "guided_diffusion.training.modules.ClassifierModule"}
        config = {**self.config, "name": "guide", "seed": settings["seed"], "network": network, "module": module}
        state = {f"classifier.{name}": tensor for name, tensor in classifier.state_dict().items()}
        return {"state_dict": state, "guided_diffusion": make_record("classifier", config, data)}


def _key(config: dict[str, Any], spec: ModelSpec) -> str:
    """Return a hash of everything that a guide learns from; where data with a ``content`` lies is no part of it."""
    guide, data, schedule = (update_targets(config[part]) for part in PARTS)
    ignored = (*NOT_LEARNT, *(("root", "path") if data.get("content") else ()))
    learnt = {key: value for key, value in data.items() if key not in ignored}
    return content_hash(guide, learnt, schedule, list(spec.shape), list(spec.class_names))


def build_training(node: dict[str, Any]) -> GuideTraining:
    """Return the training that a plain node ``guide`` describes; its errors name the key."""
    training: GuideTraining = build(OmegaConf.create({"guide": node}).guide)
    return training


def guide_of_training(config: DictConfig, settings: dict[str, Any], kind: str, spec: ModelSpec) -> Guide | None:
    """Return the guide of a training, or ``None`` if it needs none, and point the guidance in ``config`` to its file.

    The file may be written later, but before the training samples.

    Args:
        settings: The resolved config of the training.
        kind: The kind of model in training.
        spec: Its properties.

    Raises:
        ValueError, OSError: If there can't be such a guide.
    """
    if not guidance_wants_guide(config.guidance):
        return None
    if kind != "diffusion":
        raise ValueError("classifier=auto has no effect here: the classifier in training guides; leave it out")
    own = {str(settings["guide"]["network"]["_target_"]).partition(".")[0]} - {"guided_diffusion"}
    trusted = (*config.trusted, *own)
    guide = Guide(
        spec,
        {part: settings[part] for part in PARTS},
        Path(config.output_dir),
        config.trainer.get("accelerator", "auto"),
        trusted,
    )
    guide.check()
    config.guidance.classifier = {
        "_target_": "guided_diffusion.checkpoints.LateClassifier",
        "checkpoint": str(guide.path),
        "trusted": list(trusted),
    }
    return guide


def guide_of_model(config: DictConfig, model: TrainedDiffusion) -> Guide | None:
    """Return the guide of a trained model, or ``None`` if the guidance of ``config`` needs none.

    Raises:
        ValueError, OSError: If there can't be such a guide.
    """
    if not guidance_wants_guide(config.guidance):
        return None
    node: Any = OmegaConf.to_container(config.guide, resolve=True)
    parts = {"guide": node, "data": model.config["data"], "schedule": model.config["schedule"]}
    guide = Guide(
        model.spec,
        parts,
        _run_of(Path(config.checkpoint).absolute()),
        config.trainer.get("accelerator", "auto"),
        config.trusted,
    )
    guide.check()
    return guide


def _run_of(checkpoint: Path) -> Path | None:
    """Return the folder of the training whose model this is: the file's own, or that around it; ``None`` if neither."""
    folders = (checkpoint.parent, checkpoint.parent.parent)
    return next((folder for folder in folders if "module" in config_of(folder)), None)


def with_guide(
    config: DictConfig, model: TrainedDiffusion, recipe: Recipe, load_data: Callable[[], LabelledDataModule]
) -> Recipe:
    """Return the recipe with the classifier of ``classifier=auto``, and put its path into ``config``.

    A classifier that is not there yet is trained. A recipe that needs none is returned as it is.
    """
    guide = guide_of_model(config, model)
    if guide is None:
        return recipe
    config.guidance.classifier.checkpoint = str(guide.find_or_train(load_data))
    built: Recipe = build(config.recipe)
    return built
