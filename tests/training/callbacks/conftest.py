"""Trainings for the tests of the callbacks."""

import pytest
from pytorch_lightning import Trainer

from guided_diffusion.checkpoints.record import build_network
from guided_diffusion.utils.instantiate import build


@pytest.fixture
def train_points(compose, tiny_points):
    """Train on points in the plane with one callback."""

    def trained(callback):
        config = compose("+experiment=cfg_patterns", *tiny_points)
        data = build(config.data)
        module = build(config.module, network=build_network(config.network, data.shape, data.num_classes))
        trainer = Trainer(
            accelerator="cpu",
            max_steps=4,
            callbacks=[callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(module, datamodule=data)

    return trained
