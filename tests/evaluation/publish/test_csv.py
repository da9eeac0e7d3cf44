import csv

import pytest
from pytorch_lightning.loggers import CSVLogger

from guided_diffusion.evaluation.publish import publish_results


@pytest.fixture
def published(fabricate, tmp_path):
    """Publish an evaluation with these jobs in a logger that no function is registered for; return the table's row."""

    class Own(CSVLogger):
        pass

    def row(*jobs):
        publish_results(Own(tmp_path, "", ""), fabricate([0.0, 1.0, 2.5], jobs=jobs), tmp_path)
        with (tmp_path / "metrics.csv").open() as file:
            (only,) = csv.DictReader(file)
        return only

    return row


def test_any_logger_gets_a_metric_for_each_quantity_and_scale(published):
    row = published({})
    assert float(row["guidance/accuracy_w2.5"]) == pytest.approx(3.5 / 4.5)
    assert float(row["guidance/seconds_w0"]) == 1.5
    assert float(row["guidance/nfe_w1"]) == 2


def test_several_curves_have_their_name_in_the_metric(published):
    row = published({"p": "0.1"}, {"p": "0.2"})
    assert float(row["guidance/accuracy/cfg-ddim-25-p=0_1_w1"]) == pytest.approx(2 / 3)
    assert float(row["guidance/accuracy/cfg-ddim-25-p=0_2_w1"]) == pytest.approx(2 / 4)
