"""The base of datasets of the user's own images, whose splits are shares of each class."""

import torch
from jaxtyping import Int
from torch import Tensor

from guided_diffusion.data.base import ImageDataModule
from guided_diffusion.utils.rng import generator_for


class OwnImages(ImageDataModule):
    """A dataset of the user's own images. Other arguments are those of ``ImageDataModule``.

    Args:
        validation_fraction: The share of the training images of each class that is held out for validation.
        test_fraction: The share of the images of each class that is for testing, where the data has no test split.

    Raises:
        ValueError: If a fraction is not in [0, 1).
    """

    held_out_by = "validation_fraction"
    root_holds_datasets = False

    def __init__(
        self,
        batch_size: int,
        validation_fraction: float,
        test_fraction: float,
        flip: bool = False,
        seed: int = 0,
        split_seed: int = 0,
        balance: bool = False,
        num_workers: int = 0,
    ) -> None:
        super().__init__(batch_size, 0, flip, seed, split_seed, balance, num_workers)
        for name, value in {"validation_fraction": validation_fraction, "test_fraction": test_fraction}.items():
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value}")
        self.validation_fraction, self.test_fraction = validation_fraction, test_fraction

    def validation_rows(self, labels: Int[Tensor, " n"]) -> Int[Tensor, " v"]:
        return stratified_rows(labels, self.validation_fraction, self.split_seed)

    def test_rows(self, labels: Int[Tensor, " n"]) -> Int[Tensor, " t"]:
        """Return the rows that are for testing, given the labels of all samples."""
        return stratified_rows(labels, self.test_fraction, self.split_seed)


def stratified_rows(labels: Int[Tensor, " n"], fraction: float, seed: int) -> Int[Tensor, " k"]:
    """Return sorted random rows: about ``fraction`` of those of each class, at least one but never all of them.

    A class with a single sample has no row, and with a fraction of 0 no class has one.
    """
    rows = [torch.zeros(0, dtype=torch.int64)]
    for label in labels.unique():
        of_class = (labels == label).nonzero().flatten()
        count = min(max(1, round(fraction * len(of_class))), len(of_class) - 1) if fraction else 0
        order = torch.randperm(len(of_class), generator=generator_for("cpu", seed, int(label), 1))
        rows.append(of_class[order[:count]])
    return torch.cat(rows).sort().values
