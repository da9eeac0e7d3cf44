import csv

import pytest

from guided_diffusion.training.loggers import CSVLogger


@pytest.fixture
def table(tmp_path):
    """The rows of the file."""

    def rows():
        with (tmp_path / "metrics.csv").open(newline="") as file:
            return list(csv.DictReader(file))

    return rows


@pytest.fixture
def earlier(tmp_path):
    """The folder of an earlier run, which logged three steps."""
    logger = CSVLogger(str(tmp_path))
    for step in range(3):
        logger.log_metrics({"loss": step / 10}, step)
    logger.save()
    return tmp_path


def test_a_run_continues_the_table_after_the_rows_that_it_keeps(earlier, table):
    logger = CSVLogger(str(earlier))
    logger.keep(2)
    logger.log_metrics({"loss": 0.7}, 2)
    assert logger.rows == 3
    logger.save()
    assert [(row["step"], row["loss"]) for row in table()] == [("0", "0.0"), ("1", "0.1"), ("2", "0.7")]


def test_a_run_that_keeps_no_rows_begins_a_new_table(earlier, table):
    logger = CSVLogger(str(earlier))
    logger.keep(0)
    logger.log_metrics({"accuracy": 1.0}, 0)
    logger.save()
    assert table() == [{"accuracy": "1.0", "step": "0"}]


def test_a_new_column_leaves_earlier_rows_as_they_are(earlier, table):
    logger = CSVLogger(str(earlier))
    logger.keep(3)
    logger.log_metrics({"accuracy": 1.0}, 3)
    logger.save()
    assert [row["loss"] for row in table()] == ["0.0", "0.1", "0.2", ""]
    assert table()[3]["accuracy"] == "1.0"


@pytest.fixture
def unwritable(tmp_path):
    """A logger with a folder where its file should be."""
    (tmp_path / "metrics.csv").mkdir()
    logger = CSVLogger(str(tmp_path))
    logger.log_metrics({"loss": 0.5}, 0)
    return logger


def test_a_table_that_cannot_be_written_is_an_error(unwritable, tmp_path):
    with pytest.raises(OSError, match=f"metrics could not be written in {tmp_path}"):
        unwritable.finalize("success")


def test_a_run_that_failed_reports_no_second_error(unwritable):
    unwritable.finalize("failed")
    assert unwritable.rows == 1
