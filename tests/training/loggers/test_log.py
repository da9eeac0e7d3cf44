import csv

import pytest
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger

from guided_diffusion.training.loggers.log import log_curve, log_image


@pytest.fixture
def trainer(tmp_path):
    return Trainer(logger=CSVLogger(tmp_path, "", ""), enable_progress_bar=False, enable_checkpointing=False)


def test_a_curve_is_one_metric_for_each_scale_where_there_is_one_axis_only(trainer, tmp_path):
    log_curve(trainer, "guidance/accuracy", [0, 1.5, 8], [0.1, 0.5, 1.0])
    trainer.logger.save()
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {
            "guidance/accuracy_w0": "0.1",
            "guidance/accuracy_w1.5": "0.5",
            "guidance/accuracy_w8": "1.0",
            "step": "0",
        }
    ]


def test_as_many_values_as_scales_are_needed(trainer):
    with pytest.raises(ValueError, match="zip"):
        log_curve(trainer, "guidance/accuracy", [0, 1], [0.1])


def test_a_picture_needs_no_logger_that_can_show_it(trainer, tmp_path):
    log_image(trainer, "samples/grid", tmp_path / "there_is_none.png")
    trainer.logger.save()
    assert not (tmp_path / "metrics.csv").exists()
