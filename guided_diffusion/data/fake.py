"""Random images, for tests and demonstrations."""

from collections.abc import Sequence

import torch

from guided_diffusion.data.base import Batch, ImageDataModule
from guided_diffusion.utils.validation import check_positive, height_and_width


class Fake(ImageDataModule):
    """Images of uniform random pixels, whose labels cycle through the classes.

    ``image_size`` is the side of square images, or height and width. ``num_train`` includes the images held out for
    validation, and ``split_seed`` is also the seed of the pixels. Other arguments are those of ``ImageDataModule``.

    Raises:
        ValueError: If one of the numbers is below 1.
    """

    name = "fake"

    def __init__(
        self,
        batch_size: int,
        validation_size: int,
        channels: int = 1,
        image_size: int | Sequence[int] = 8,
        num_classes: int = 10,
        num_train: int = 256,
        num_test: int = 64,
        flip: bool = False,
        seed: int = 0,
        split_seed: int = 0,
        balance: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, validation_size, flip, seed, split_seed, balance, num_workers)
        height_and_width(image_size)
        check_positive(channels=channels, num_classes=num_classes, num_train=num_train, num_test=num_test)
        self.channels, self.image_size = channels, image_size
        self.class_names = tuple(f"class {index}" for index in range(num_classes))
        self.num_train, self.num_test = num_train, num_test

    def load(self, train: bool) -> Batch:
        count = self.num_train if train else self.num_test
        generator = torch.Generator().manual_seed(2 * self.split_seed + train)
        images = torch.randint(256, (count, *self.shape), generator=generator, dtype=torch.uint8)
        return Batch(images, torch.arange(count) % self.num_classes)
