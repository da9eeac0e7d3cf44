"""The judge of samples: a classifier trained on clean images, which never guides; and a second one, to check the first.

It is trained when first needed and kept in a cache, under a key made of the data, the architecture, the
way it is trained and the seed.
"""

from __future__ import annotations

import hashlib
import itertools
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from guided_diffusion.data import ImageDataModule, normalise
from guided_diffusion.networks import JudgeNet, LeNet
from guided_diffusion.utils.files import atomic_write, cache_dir
from guided_diffusion.utils.rng import generator_for

CHUNK = 1000


ARCHITECTURES: dict[str, type[JudgeNet] | type[LeNet]] = {"cnn": JudgeNet, "lenet": LeNet}
"""A name in the config and the network it stands for."""


@dataclass(frozen=True)
class Judge:
    """A trained classifier, and its accuracy on real test images: the ceiling of what it can say of samples.

    Its network gives logits, and has ``features(images)`` for whoever measures distances.
    """

    network: nn.Module
    ceiling: float
    name: str = "judge"
    """Of the network: distances on the features of different networks do not compare."""
    cross_check: Judge | None = None
    """Another judge of the same samples: guidance that only fools the first does not fool it too."""

    def classify(self, images: Float[Tensor, "n c h w"]) -> Int[Tensor, " n"]:
        """The most likely class of each image; images in [-1, 1]."""
        return _classify(self.network, images)

    def probabilities(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n classes"]:
        """Of each class for each image; images in [-1, 1]."""
        return _in_chunks(self.network, images).softmax(1)

    def features(self, images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
        """What the network knows of each image before it decides; images in [-1, 1]."""
        return _in_chunks(cast(Callable[[Tensor], Tensor], self.network.features), images)


UNREADABLE = (RuntimeError, EOFError, OSError, pickle.UnpicklingError)
"""What torch raises of a file that is damaged, or none of its own."""


@dataclass(frozen=True)
class JudgeSource:
    """Where the judge comes from: a file, or the cache, or a training of its own.

    Args:
        checkpoint: a file from the cache, of this run or another, to be used as it is.
        steps: of training.
        batch_size: images per step.
        learning_rate: at the top of the one-cycle schedule.
        width: channels of the first stage of the network.
        seed: of its weights, its order and its dropout.
        architecture: of the network, a name in ``ARCHITECTURES``. A file's own architecture and width count.

    Raises:
        FileNotFoundError: if ``checkpoint`` does not exist.
        ValueError: if it holds no judge, or a setting can't be.
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
        self._check_width()
        if self.checkpoint is not None:
            _check_file(Path(self.checkpoint))

    def _check_width(self) -> None:
        try:
            with torch.device("meta"):
                ARCHITECTURES[self.architecture](1, 8, 2, max(0, self.width))
        except (ValueError, RuntimeError, ZeroDivisionError) as error:
            raise ValueError(f"width {self.width} does not do for architecture {self.architecture}: {error}") from error

    def __call__(self, data: ImageDataModule) -> Judge:
        """The judge for this data, on the CPU; the global random state is left as it was.

        Raises:
            ValueError: if the file holds no judge for such images and classes.
        """
        with torch.random.fork_rng(devices=[]):  # a network draws when it is made, and in training
            return self._judge(data)

    def _judge(self, data: ImageDataModule) -> Judge:
        if self.checkpoint is not None:
            judge = self._read(Path(self.checkpoint), data)
            return replace(judge, ceiling=accuracy(judge.network, data))
        path = cache_dir() / f"judge-{data.name}-{self._key(data)}.pt"
        if path.is_file():
            return self._read(path, data)
        judge = self._train(data)
        with atomic_write(path) as temporary:
            torch.save(self._saved(judge), temporary)
        return judge

    def _saved(self, judge: Judge) -> dict[str, object]:
        return {
            "judge": judge.network.state_dict(),
            "ceiling": judge.ceiling,
            "width": self.width,
            "architecture": self.architecture,
        }

    def _network(self, data: ImageDataModule) -> nn.Module:
        return _build(self.architecture, data, self.width)

    def _key(self, data: ImageDataModule) -> str:
        settings = repr((self, data.shape, data.class_names, data.flip, str(self._network(data))))
        content = hashlib.sha256(settings.encode())
        for split in ("train", "test"):
            content.update(data.split(split).samples.numpy().tobytes())
            content.update(data.split(split).labels.numpy().tobytes())
        return content.hexdigest()[:16]

    def _read(self, path: Path, data: ImageDataModule) -> Judge:
        try:
            saved = torch.load(path, map_location="cpu", weights_only=True)
            width, architecture = saved["width"], saved.get("architecture", "cnn")  # older files know no other
            network = _build(architecture, data, width)
            network.load_state_dict(saved["judge"])
            return Judge(network.eval(), saved["ceiling"], _name(network))
        except (*UNREADABLE, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} holds no judge for {data.name} ({data.channels}x{data.image_size}x{data.image_size}, "
                f"{data.num_classes} classes): {error}. Delete it, if it is the cache's, and it is made anew"
            ) from error

    def _train(self, data: ImageDataModule) -> Judge:
        """One-cycle AdamW on the clean training images."""
        print(f"training a judge on the clean images of {data.name}, once")
        images, labels = data.split("train")
        torch.default_generator.manual_seed(self.seed)
        network = self._network(data)
        optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.learning_rate, self.steps)
        for rows in self._batches(len(labels)):
            batch = normalise(images[rows])
            if data.flip:
                mirrored = torch.rand(len(batch)) < 0.5
                batch[mirrored] = batch[mirrored].flip(-1)
            optimizer.zero_grad()
            F.cross_entropy(network(batch), labels[rows]).backward()
            optimizer.step()
            scheduler.step()
        return Judge(network.eval(), accuracy(network, data), _name(network))

    def _batches(self, count: int) -> Iterator[Int[Tensor, " b"]]:
        """The rows of each step: all images in a new order, then again."""
        done = 0
        for epoch in itertools.count():
            order = torch.randperm(count, generator=generator_for("cpu", self.seed, epoch))
            for rows in order.split(self.batch_size)[: max(1, count // self.batch_size)]:
                if done == self.steps:
                    return
                yield rows
                done += 1


@dataclass(frozen=True)
class JudgePair:
    """A judge that another one, of another architecture or seed, checks."""

    first: JudgeSource
    second: JudgeSource

    def __call__(self, data: ImageDataModule) -> Judge:
        """The first judge for this data, with the second as its ``cross_check``."""
        return replace(self.first(data), cross_check=self.second(data))


def accuracy(network: nn.Module, data: ImageDataModule) -> float:
    """Share of the real test images that the network, in eval mode, classifies as their label says."""
    images, labels = data.split("test")
    return (_classify(network, normalise(images)) == labels).double().mean().item()


def _classify(network: nn.Module, images: Float[Tensor, "n c h w"]) -> Int[Tensor, " n"]:
    return _in_chunks(network, images).argmax(1)


@torch.no_grad()
def _in_chunks(function: Callable[[Tensor], Tensor], images: Float[Tensor, "n c h w"]) -> Float[Tensor, "n d"]:
    return torch.cat([function(chunk) for chunk in images.split(CHUNK)])


def _build(architecture: str, data: ImageDataModule, width: int) -> nn.Module:
    return ARCHITECTURES[architecture](data.channels, data.image_size, data.num_classes, width)


def _name(network: nn.Module) -> str:
    return type(network).__name__


def _check_file(path: Path) -> None:
    """Whether a judge is in it at all, known before samples are drawn for it."""
    if not path.is_file():
        raise FileNotFoundError(f"there is no judge at {path.absolute()}")
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE:
        saved = None
    if not isinstance(saved, dict) or not saved.keys() >= {"judge", "width"}:
        raise ValueError(f"{path} holds no judge: take a judge-*.pt of the cache, or leave judge.checkpoint out")
