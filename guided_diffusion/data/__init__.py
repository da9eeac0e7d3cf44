"""The datasets: LightningDataModules with the interface of ``LabelledDataModule``."""

from guided_diffusion.data.base import (
    Batch,
    ImageDataModule,
    LabelledDataModule,
    denormalise,
    kind_of,
    network_sizes,
    normalise,
)
from guided_diffusion.data.digits import Digits
from guided_diffusion.data.fake import Fake
from guided_diffusion.data.image_folder import ImageFolder
from guided_diffusion.data.npz import NpzImages
from guided_diffusion.data.patterns import Pattern, Patterns
from guided_diffusion.data.torchvision import CIFAR10, MNIST, FashionMNIST

__all__ = [
    "CIFAR10", "MNIST", "Batch", "Digits", "Fake", "FashionMNIST", "ImageDataModule", "ImageFolder",
    "LabelledDataModule", "NpzImages", "Pattern", "Patterns", "denormalise", "kind_of", "network_sizes", "normalise",
]  # fmt: skip
