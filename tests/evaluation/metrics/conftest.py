"""Generated images and a judge for the tests of metrics."""

from __future__ import annotations

import pytest
from torch import Tensor, nn

from guided_diffusion.data import Fake
from guided_diffusion.evaluation.judge import Judge

CLASSES = 4


class FirstRow(nn.Module):
    """A network whose features are the pixels of the first row and whose logits are the first of them."""

    def features(self, images: Tensor) -> Tensor:
        return images[:, 0, 0]

    def forward(self, images: Tensor) -> Tensor:
        return 3 * images[:, 0, 0, :CLASSES]


@pytest.fixture
def judge() -> Judge:
    return Judge(FirstRow(), ceiling=1.0, name="FirstRow")


@pytest.fixture
def gray() -> Fake:
    """Random images of one channel and four classes."""
    return Fake(batch_size=16, validation_size=32, num_classes=CLASSES)


@pytest.fixture(params=[1, 3], ids=["one channel", "three channels"])
def data(request: pytest.FixtureRequest) -> Fake:
    """Random images of four classes."""
    return Fake(batch_size=16, validation_size=32, num_classes=CLASSES, channels=request.param)
