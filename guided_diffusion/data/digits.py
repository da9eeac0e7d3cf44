"""The handwritten digits that ship inside scikit-learn."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from guided_diffusion.data.base import Batch, ImageDataModule


class Digits(ImageDataModule):
    """1,797 real handwritten digits, 8x8 in grey, without any download; 360 of them are for testing.

    They are the test set of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, UCI, CC BY 4.0),
    with pixels of 0 to 16 mapped to 0 to 255. The split for testing is stratified and always the same. The arguments
    are those of ``ImageDataModule``.
    """

    name = "digits"
    channels = 1
    image_size = 8
    class_names = tuple("0123456789")

    def load(self, train: bool) -> Batch:
        pixels, labels = load_digits(return_X_y=True)
        train_rows, test_rows = train_test_split(range(len(labels)), test_size=360, stratify=labels, random_state=0)
        rows = train_rows if train else test_rows
        images = torch.from_numpy(pixels[rows] * (255 / 16)).round().to(torch.uint8)
        return Batch(images.reshape(-1, 1, 8, 8), torch.from_numpy(labels[rows]).long())
