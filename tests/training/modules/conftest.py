"""A callback that notes losses."""

import pytest
from pytorch_lightning import Callback


class Losses(Callback):
    """Notes the training loss of every step, and the validation loss of every validation."""

    def __init__(self):
        self.train, self.val = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.train.append(outputs["loss"].item())

    def on_validation_end(self, trainer, pl_module):
        self.val.append({key: value.item() for key, value in trainer.callback_metrics.items() if key.startswith("val")})


@pytest.fixture
def new_losses():
    """The class of the callback, for tests that train more than once."""
    return Losses


@pytest.fixture
def losses():
    return Losses()
