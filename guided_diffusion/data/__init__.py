"""Datasets as LightningDataModules that share one interface, ``ImageDataModule``."""

from guided_diffusion.data.base import Batch, ImageDataModule, denormalise, normalise
from guided_diffusion.data.digits import Digits
from guided_diffusion.data.fake import Fake
from guided_diffusion.data.torchvision import CIFAR10, MNIST, FashionMNIST

__all__ = ["CIFAR10", "MNIST", "Batch", "Digits", "Fake", "FashionMNIST", "ImageDataModule", "denormalise", "normalise"]
