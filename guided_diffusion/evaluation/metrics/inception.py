"""Inception FID and KID of RGB images: torchmetrics' measures of features of torch-fidelity's network.

The package torch-fidelity and the weights of the network are optional. Neither is fetched; both are checked before
anything is sampled.
"""

import hashlib
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from guided_diffusion.data import LabelledDataModule
from guided_diffusion.evaluation.metrics.images import interval_around, rows_of_classes
from guided_diffusion.evaluation.proportions import EQUAL
from guided_diffusion.evaluation.results import OTHER, PUBLISHED, Interval
from guided_diffusion.utils.files import load_tensors
from guided_diffusion.utils.progress import progress_bar

CHUNK = 50  # images that go through the network at a time, as 299 x 299 pixels
SUBSET = 1000  # samples in a subset of KID


@dataclass(frozen=True)
class Inception:
    """A feature network of RGB images."""

    network: nn.Module
    """The network, in eval mode: uint8 images of shape (n, 3, h, w) to features of shape (n, d)."""
    weights: str = OTHER
    """The origin of its weights, ``published`` or ``other``."""
    device: torch.device | str = "cpu"
    """The device to run it on, to which it is moved when it is first used."""

    @torch.no_grad()
    def features(self, images: UInt8[Tensor, "n 3 h w"], name: str) -> Float[Tensor, "n d"]:
        """Return the features of images, on the CPU; ``name`` is shown beside the progress bar."""
        network = self.network.to(self.device)
        chunks = progress_bar(images.split(CHUNK), desc=f"Inception features of {name}")
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            return torch.cat([network(chunk.to(self.device)).float().cpu() for chunk in chunks])


class InceptionMeasures(NamedTuple):
    """The measures of the samples of all scales, as ``Result`` holds them."""

    measured: Sequence[Mapping[str, Interval]]
    """The measures of each scale; ``inception_fid`` has no interval."""
    floors: Mapping[str, float]
    """The values that as many training images with the same labels reach; nan if there are fewer of a class."""
    facts: Mapping[str, str | int]


def load_inception(
    weights: bool | str, data: LabelledDataModule, labels: str, device: torch.device | str = "cpu"
) -> Inception:
    """Return the Inception network of torch-fidelity, to be run on a device.

    Args:
        weights: The file of its weights, or true for the place where torch keeps downloads.
        data: The data to measure.
        labels: How the labels of the samples are drawn, ``proportional`` or ``equal``.

    Raises:
        ValueError: If these data or labels can't be measured, the package is missing, or the file is no such weights.
        FileNotFoundError: If the file is missing.
    """
    _check_data(data, labels)
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3
    except ImportError as error:
        command = 'pip install "guided-diffusion-lightning[inception]"'
        raise ValueError(f"inception: torch-fidelity is not installed: {command}") from error
    name = Path(URL_INCEPTION_V3).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name if weights is True else Path(str(weights))
    if not path.is_file():
        raise FileNotFoundError(
            f"inception: there is no file {path}: put {name}, a file of the releases of torch-fidelity, there, or name "
            "the place where it is with inception=PATH"
        )
    network = _TorchFidelity(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    is_published = digest.startswith(Path(name).stem.rpartition("-")[2])
    return Inception(network, PUBLISHED if is_published else OTHER, device)


def _check_data(data: LabelledDataModule, labels: str) -> None:
    if data.kind != "images" or data.shape[0] != 3:
        what = {1: "grey images"}.get(data.shape[0], f"images of {data.shape[0]} channels")
        held = what if data.kind == "images" else data.kind
        raise ValueError(f"inception measures RGB images only, and {data.name} has {held}: leave it out")
    if labels == EQUAL and len(data.class_counts("test").unique()) > 1:
        raise ValueError(
            f"inception compares with the test images as they are, and {data.name} has not equally many of each class: "
            "leave out labels=equal, or inception"
        )


class _TorchFidelity(nn.Module):
    """The network of torch-fidelity, which resizes images as that of the first papers did; features have 2048 values.

    Its file is read without running code in it; then torch-fidelity, which would run code, reads it again.
    """

    def __init__(self, path: Path) -> None:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        super().__init__()
        load_tensors(path)
        try:
            with torch.random.fork_rng(devices=[]):  # the network draws weights before it reads them
                self.network = FeatureExtractorInceptionV3("inception-v3-compat", ["2048"], str(path)).eval()
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} does not hold the weights of torch-fidelity's Inception network") from error

    def forward(self, images: UInt8[Tensor, "n 3 h w"]) -> Float[Tensor, "n 2048"]:
        return self.network(images)[0]


def measure_with_inception(
    inception: Inception,
    samples: Sequence[UInt8[Tensor, "n 3 h w"]],
    labels: Int[Tensor, " n"],
    data: LabelledDataModule,
    seed: int,
) -> InceptionMeasures:
    """Compare the samples of each scale with the test images, and so as many training images for the floors.

    Args:
        samples: The samples of each scale, all with these labels.
        seed: The seed of the choice of training images and of the resampling.
    """
    test, (train, train_labels) = data.split("test").samples, data.split("train")
    real = inception.features(test, "test images")
    measured = [
        _measure(real, inception.features(images, f"samples, scale {number} of {len(samples)}"), seed)
        for number, images in enumerate(samples, 1)
    ]
    wanted = labels.bincount(minlength=data.num_classes)
    rows = rows_of_classes(train_labels, wanted, seed)
    floors = dict.fromkeys(("inception_fid", "inception_kid"), math.nan)
    if len(rows) == len(labels):
        of_train = _measure(real, inception.features(train[rows], "training images"), seed)
        floors = {name: interval.value for name, interval in of_train.items()}
    names = {"inception_network": inception.weights, "reference_split": "test"}
    return InceptionMeasures(measured, floors, {**names, "reference_samples": len(test)})


def _measure(real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"], seed: int) -> dict[str, Interval]:
    kid = kernel_inception_distance(real, generated, seed)
    return {
        "inception_fid": Interval(frechet_inception_distance(real, generated), math.nan, math.nan),
        "inception_kid": interval_around(kid, real, generated, seed),
    }


def frechet_inception_distance(real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"]) -> float:
    """Return torchmetrics' FID of features; nan if either set has fewer than two."""
    if min(len(real), len(generated)) < 2:
        return math.nan
    metric = FrechetInceptionDistance(_Features(real.shape[1]))
    metric.update(real, real=True)
    metric.update(generated, real=False)
    return metric.compute().item()


def kernel_inception_distance(real: Float[Tensor, "m d"], generated: Float[Tensor, "n d"], seed: int) -> float:
    """Return torchmetrics' KID of features, the mean over 100 subsets that ``seed`` decides.

    A subset has 1,000 images of each set, or all of the smaller one; it is nan if that is a single one.
    """
    size = min(SUBSET, len(real), len(generated))
    if size < 2:
        return math.nan
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # the subsets come from the global state
        warnings.filterwarnings("ignore", ".*will save all extracted features")
        torch.default_generator.manual_seed(seed)
        metric = KernelInceptionDistance(_Features(real.shape[1]), subset_size=size)
        metric.update(real, real=True)
        metric.update(generated, real=False)
        return metric.compute()[0].item()


class _Features(nn.Identity):
    """The feature network of torchmetrics' measures when they are given features instead of images."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features
