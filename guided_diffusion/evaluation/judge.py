"""The judge: a classifier trained on clean images that evaluates samples, and guides none unless it is allowed to.

It is trained when first needed and cached by a hash of the data and its settings. A second judge can check the first.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import singledispatch
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from guided_diffusion.checkpoints.judge_file import build_judge, holds_judge, judge_network
from guided_diffusion.data import ImageDataModule, normalise
from guided_diffusion.networks.judge import ARCHITECTURES
from guided_diffusion.utils.files import cache_dir, check_cache, load_tensors, save_tensors
from guided_diffusion.utils.rng import generator_for

CHUNK = 1000  # images that go through the network at a time


@dataclass(frozen=True)
class Judge:
    """A trained classifier of images in [-1, 1]."""

    network: nn.Module
    """The network, which returns logits and has ``features(images)`` for measuring distances."""
    ceiling: float
    """The accuracy on real test images."""
    name: str = "judge"
    """The name of the network; distances in the features of different networks can't be compared."""
    cross_check: Judge | None = None
    """A second judge of the same samples, which reveals guidance that only fools the first."""

    def classify(self, images: Float[Tensor, "n c h w"]) -> Int[Tensor, " n"]:
        """Return the most likely class of each image."""
        return _in_chunks(self.network, images).argmax(1)

    def probabilities(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Return the probability of each class for each image."""
        return _in_chunks(self.network, images).softmax(1)

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """Return the features of each image, from which the network computes its logits."""
        return _in_chunks(cast(Callable[[Tensor], Tensor], self.network.features), images)


@dataclass(frozen=True)
class JudgeSource:
    """A function that returns the judge for a DataModule: from a file, from the cache, or newly trained.

    Args:
        checkpoint: A ``judge-*.pt`` file to use; its own architecture and width apply.
        learning_rate: The highest learning rate of the one-cycle schedule.
        width: The number of channels in the first stage of the network.
        seed: The seed of the weights, the order of the images and dropout.
        architecture: The network, a name in ``ARCHITECTURES``.

    Raises:
        FileNotFoundError: If ``checkpoint`` does not exist.
        ValueError: If ``checkpoint`` holds no judge, or a setting is out of range.
    """

    checkpoint: str | None = None
    steps: int = 800
    batch_size: int = 128
    learning_rate: float = 3e-3
    width: int = 32
    seed: int = 0
    architecture: str = "cnn"

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES:
            raise ValueError(f"architecture must be one of {', '.join(ARCHITECTURES)}, got {self.architecture}")
        for name in ("steps", "batch_size", "learning_rate"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")
        try:
            with torch.device("meta"):
                ARCHITECTURES[self.architecture](1, 8, 2, max(0, self.width))
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            message = f"width {self.width} is not possible for architecture {self.architecture}: {error}"
            raise ValueError(message) from error
        if self.checkpoint is not None:
            _check_file(Path(self.checkpoint))

    def __call__(self, data: ImageDataModule) -> Judge:
        """Return the judge for this data, on the CPU; the global random state stays as it is.

        Raises:
            ValueError: If the file holds no judge for images and classes like these.
        """
        with torch.random.fork_rng(devices=[]):  # networks draw their weights and dropout from the global state
            if self.checkpoint is not None:
                judge = self._read(Path(self.checkpoint), data)
                return replace(judge, ceiling=accuracy(judge.network, data))
            path = self._cached(data)
            if path.is_file():
                return self._read(path, data)
            judge = self._train(data)
        content = {"judge": judge.network.state_dict(), "ceiling": judge.ceiling}
        settings = {"width": self.width, "architecture": self.architecture}
        images = {"shape": list(data.shape), "class_names": list(data.class_names)}
        save_tensors(content | settings | images, path)
        return judge

    def check(self, data: ImageDataModule) -> None:
        """Raise the errors of ``__call__`` for this data, as far as they can be known without training a judge.

        Raises:
            ValueError: If the file, or that in the cache, holds no judge for images and classes like these.
            OSError: If a judge would have to be trained, and the cache can't be written.
        """
        data.split("test")
        path = Path(self.checkpoint) if self.checkpoint is not None else self._cached(data)
        if self.checkpoint is None and not path.is_file():
            return check_cache()
        with torch.random.fork_rng(devices=[]):
            self._read(path, data)

    def _cached(self, data: ImageDataModule) -> Path:
        return cache_dir() / f"judge-{data.name}-{self._key(data)}.pt"

    def _key(self, data: ImageDataModule) -> str:
        network = str(build_judge(self.architecture, data.shape, data.num_classes, self.width))
        settings = repr((self, data.shape, data.class_names, data.flip, network))
        content = hashlib.sha256(settings.encode())
        for part in (*data.split("train"), *data.split("test")):
            content.update(part.numpy().tobytes())
        return content.hexdigest()[:16]

    def _read(self, path: Path, data: ImageDataModule) -> Judge:
        try:
            saved = load_tensors(path)
            network = judge_network(saved, data.shape, data.num_classes)
            return Judge(network, saved["ceiling"], type(network).__name__)
        except (ValueError, RuntimeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no judge for {data.name} ({'x'.join(map(str, data.shape))}, "
                f"{data.num_classes} classes): {error}. Delete it if it lies in the cache; a new one is then trained"
            ) from error

    def _train(self, data: ImageDataModule) -> Judge:
        print(f"training a judge on the clean images of {data.name}; it is cached for the next time")
        if data.num_classes == 1:
            print(
                "there is one class, from which the judge learns nothing: distances are in features of random weights"
            )
        images, labels = data.split("train")
        torch.default_generator.manual_seed(self.seed)
        network = build_judge(self.architecture, data.shape, data.num_classes, self.width)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, self.steps)
        for rows in itertools.islice(self._batches(len(labels)), self.steps):
            batch = normalise(images[rows])
            if data.flip:
                mirrored = torch.rand(len(batch)) < 0.5
                batch[mirrored] = batch[mirrored].flip(-1)
            optimizer.zero_grad()
            F.cross_entropy(network(batch), labels[rows]).backward()
            optimizer.step()
            scheduler.step()
        return Judge(network.eval(), accuracy(network, data), type(network).__name__)

    def _batches(self, count: int) -> Iterator[Int[Tensor, " b"]]:
        """Yield the rows of each step: all images in a new order, epoch after epoch, without end."""
        for epoch in itertools.count():
            order = torch.randperm(count, generator=generator_for("cpu", self.seed, epoch))
            yield from order.split(self.batch_size)[: max(1, count // self.batch_size)]


@dataclass(frozen=True)
class JudgePair:
    """A function that returns a judge with a second one, of another architecture or seed, to check it."""

    first: JudgeSource
    second: JudgeSource

    def __call__(self, data: ImageDataModule) -> Judge:
        """Return the first judge for this data, with the second as its ``cross_check``."""
        return replace(self.first(data), cross_check=self.second(data))


@singledispatch
def check_judge(source: Callable[[ImageDataModule], Judge], data: ImageDataModule) -> None:
    """Raise if this function can't return a judge for this data; functions of your own are not checked."""


@check_judge.register(JudgeSource)
def _check_source(source: JudgeSource, data: ImageDataModule) -> None:
    source.check(data)


@check_judge.register(JudgePair)
def _check_pair(source: JudgePair, data: ImageDataModule) -> None:
    source.first.check(data)
    source.second.check(data)


def accuracy(network: nn.Module, data: ImageDataModule, balanced: bool = False) -> float:
    """Return the share of real test images that the network, which must be in eval mode, classifies correctly.

    With ``balanced`` it is the mean of the shares of the classes that have test images.
    """
    images, labels = data.split("test")
    right = (_in_chunks(network, normalise(images)).argmax(1) == labels).double()
    groups = [labels == label for label in labels.unique()] if balanced else [slice(None)]
    return torch.stack([right[group].mean() for group in groups]).mean().item()


@torch.no_grad()
def _in_chunks(function: Callable[[Tensor], Tensor], images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    return torch.cat([function(chunk) for chunk in images.split(CHUNK)])


def _check_file(path: Path) -> None:
    """Raise an error if the file holds no judge, before samples are drawn for it."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no judge at {path.absolute()}")
    if not holds_judge(path):
        raise ValueError(f"{path} holds no judge: use a judge-*.pt file from the cache, or leave judge.checkpoint out")
