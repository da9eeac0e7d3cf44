import csv

import pytest

from guided_diffusion.schedules import Cosine
from guided_diffusion.training.callbacks import AccuracyByNoise


@pytest.fixture
def rows(classifier_run):
    with (classifier_run / "accuracy_by_noise.csv").open() as file:
        return list(csv.DictReader(file))


def test_the_table_has_a_row_for_each_tenth_of_time(rows):
    assert list(rows[0]) == ["t_from", "t_to", "log_snr_from", "log_snr_to", "accuracy", "calibration_error"]
    assert [(row["t_from"], row["t_to"]) for row in rows] == [(f"{n / 10:g}", f"{(n + 1) / 10:g}") for n in range(10)]
    assert (rows[0]["log_snr_from"], rows[-1]["log_snr_to"]) == ("inf", f"{Cosine().log_snr_min:g}")


def test_the_table_holds_the_metrics_of_the_last_validation(rows, classifier_run):
    with (classifier_run / "metrics.csv").open() as file:
        logged = [row for row in csv.DictReader(file) if row["val/loss"]][-1]
    for band, row in enumerate(rows):
        name = f"t_{band / 10:.2f}_{(band + 1) / 10:.2f}"
        assert float(row["accuracy"]) == pytest.approx(float(logged[f"val/accuracy_{name}"]), rel=1e-5)
        assert float(row["calibration_error"]) == pytest.approx(
            float(logged[f"val/calibration_error_{name}"]), rel=1e-5
        )


def test_the_table_is_printed(fit, classifier_overrides, tmp_path, capsys):
    fit(*classifier_overrides, callbacks=[AccuracyByNoise(str(tmp_path))])
    out = capsys.readouterr().out
    assert "validation accuracy (and calibration error) of the classifier by noise level" in out
    assert out.count("  t 0.") == 10


def test_without_a_validation_a_warning_says_why_there_is_no_table(fit, classifier_overrides, tmp_path, caplog):
    fit(*classifier_overrides, "trainer.val_check_interval=100", callbacks=[AccuracyByNoise(str(tmp_path))])
    assert not (tmp_path / "accuracy_by_noise.csv").exists()
    first, last = (record.getMessage() for record in caplog.records if "accuracy_by_noise.csv" in record.getMessage())
    assert first.startswith("there will be no accuracy_by_noise.csv: no validation fits into the training")
    assert "lower trainer.val_check_interval" in last


def test_a_diffusion_model_is_refused(fit, tmp_path):
    with pytest.raises(ValueError, match="callbacks=classifier is for module=classifier"):
        fit(callbacks=[AccuracyByNoise(str(tmp_path))])
