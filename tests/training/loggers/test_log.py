import csv

import numpy as np
import pytest
from PIL import Image
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from guided_diffusion.training.loggers import log_curve, log_image


@pytest.fixture
def trainer_with():
    return lambda *loggers: Trainer(logger=list(loggers), enable_progress_bar=False, enable_checkpointing=False)


def test_a_curve_is_one_metric_for_each_scale_in_a_table(trainer_with, tmp_path):
    trainer = trainer_with(CSVLogger(tmp_path, "", ""))
    log_curve(trainer, "guidance/accuracy", [0, 1.5, 8], [0.1, 0.5, 1.0])
    trainer.logger.save()
    with (tmp_path / "metrics.csv").open() as file:
        (row,) = csv.DictReader(file)
    assert row == {
        "guidance/accuracy_w0": "0.1",
        "guidance/accuracy_w1.5": "0.5",
        "guidance/accuracy_w8": "1.0",
        "step": "0",
    }


def test_a_curve_is_drawn_against_the_scale_in_wandb(trainer_with, wandb_to_fake_run):
    log_curve(trainer_with(wandb_to_fake_run), "guidance/accuracy", [0, 1.5], [0.1, 0.5])
    run = wandb_to_fake_run.experiment
    assert run.axes == {"guidance/scale": None, "guidance/accuracy": "guidance/scale"}
    assert run.points == [
        {"guidance/scale": 0, "guidance/accuracy": 0.1},
        {"guidance/scale": 1.5, "guidance/accuracy": 0.5},
    ]


def test_every_logger_gets_the_curve(trainer_with, wandb_to_fake_run, tmp_path):
    trainer = trainer_with(CSVLogger(tmp_path, "", ""), wandb_to_fake_run)
    log_curve(trainer, "guidance/accuracy", [0], [0.1])
    trainer.loggers[0].save()
    assert (tmp_path / "metrics.csv").is_file()
    assert len(wandb_to_fake_run.experiment.points) == 1


def test_a_curve_needs_as_many_values_as_scales(trainer_with, tmp_path):
    with pytest.raises(ValueError, match="zip"):
        log_curve(trainer_with(CSVLogger(tmp_path, "", "")), "guidance/accuracy", [0, 1], [0.1])


def test_an_image_is_shown_in_tensorboard(trainer_with, tmp_path):
    Image.fromarray(np.full((2, 3), 128, np.uint8)).save(tmp_path / "image.png")
    trainer = trainer_with(TensorBoardLogger(tmp_path, "", ""))
    log_image(trainer, "samples/grid", tmp_path / "image.png")
    trainer.logger.finalize("success")
    (image,) = EventAccumulator(str(tmp_path), {"images": 0}).Reload().Images("samples/grid")
    assert (image.step, image.width, image.height) == (0, 3, 2)


def test_a_logger_without_images_ignores_them(trainer_with, tmp_path):
    trainer = trainer_with(CSVLogger(tmp_path, "", ""))
    log_image(trainer, "samples/grid", tmp_path / "missing.png")
    trainer.logger.save()
    assert not (tmp_path / "metrics.csv").exists()
