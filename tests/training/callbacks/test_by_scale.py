import csv

import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from guided_diffusion.data import Fake
from guided_diffusion.data.base import Batch
from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.guidance import ClassifierFree
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.training.callbacks import MeasureByScale
from guided_diffusion.utils.instantiate import build

SCALES = [0, 1.5, 3]
RIGHT = [n % 10 for n in range(40)]
"""The labels of forty samples."""


class FixedAnswers(nn.Module):
    """A classifier whose answers do not depend on the images."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        return nn.functional.one_hot(torch.as_tensor(self.classes)[: len(images)], 10).float()


def table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.fixture
def measured(fit, tmp_path):
    """Train with a judge that gives these answers; return the rows of the table."""

    def rows(answers, *overrides, **arguments):
        recipe = Recipe(ClassifierFree(), sampler=Sampler(steps=1))
        judge = Judge(FixedAnswers(answers), ceiling=0.875)
        callback = MeasureByScale(recipe, SCALES, str(tmp_path), num_samples=40, judge=lambda data: judge)
        fit(*overrides, callbacks=[callback], **arguments)
        return table(tmp_path / "accuracy_by_scale.csv")

    return rows


@pytest.mark.parametrize(
    ("answers", "accuracy", "channels"),
    [
        (RIGHT, "1.000000", 1),
        ([3] * 40, "0.100000", 3),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (RIGHT, "1.000000", 3),
                ([3] * 40, "0.100000", 1),
                ([0] * 20 + RIGHT[20:], "0.550000", 1),
                ([0] * 20 + RIGHT[20:], "0.550000", 3),
            )
        ),
    ],
)
def test_accuracy_is_the_share_in_which_the_judge_sees_the_label(answers, accuracy, channels, measured):
    assert measured(answers, f"data.channels={channels}") == [
        {"scale": scale, "accuracy": accuracy, "num_samples": "40", "judge_ceiling": "0.875000"}
        for scale in ("0", "1.5", "3")
    ]


def test_the_judge_sees_samples_of_every_scale(fit, tmp_path):
    seen = []

    class Recorder(nn.Module):
        def forward(self, images):
            seen.append(images)
            return torch.zeros(len(images), 10)

    recipe = Recipe(ClassifierFree(), sampler=Sampler(steps=2))
    judge = Judge(Recorder(), ceiling=1.0)
    callback = MeasureByScale(recipe, SCALES, str(tmp_path), seed=7, num_samples=20, judge=lambda data: judge)
    _, module = fit(callbacks=[callback])
    for images, scale in zip(seen, SCALES, strict=True):
        one = Recipe(ClassifierFree(scale), sampler=Sampler(steps=2))
        expected = one.sample(module.denoiser, torch.arange(20) % 10, (1, 8, 8), seed=7)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    assert not torch.equal(seen[0], seen[2])


def test_labels_are_drawn_in_the_proportions_of_the_test_split(measured, monkeypatch):
    """Of 64 test images, 48 are of class 0 and 16 of class 1; the judge sees class 0 only."""
    load = Fake.load

    def uneven(self, train):
        images, labels = load(self, train)
        return Batch(images, labels if train else torch.tensor([0] * 48 + [1] * 16))

    monkeypatch.setattr(Fake, "load", uneven)
    assert {row["accuracy"] for row in measured([0] * 40)} == {"0.750000"}


def test_the_plot_is_written_the_table_printed_and_the_logger_gets_a_metric_for_each_scale(measured, tmp_path, capsys):
    measured([3] * 40, logger=CSVLogger(tmp_path, "", ""))
    with Image.open(tmp_path / "accuracy_by_scale.png") as picture:
        assert min(picture.size) > 300
    out = capsys.readouterr().out
    assert "judge accuracy, 40 samples (real test images: 87.5 %)" in out
    assert "w = 1.5   accuracy 10.0 %" in out
    logged = table(tmp_path / "metrics.csv")[-1]
    assert {key: float(logged[key]) for key in logged if key.startswith("guidance/")} == pytest.approx(
        {"guidance/accuracy_w0": 0.1, "guidance/accuracy_w1.5": 0.1, "guidance/accuracy_w3": 0.1}
    )


def test_points_are_measured_by_the_distance_to_their_curve(train_points, compose, tiny_points, tmp_path, capsys):
    config = compose("+experiment=cfg_patterns", *tiny_points, output_dir=tmp_path).callbacks
    train_points(build(config.distance))
    rows = table(tmp_path / "distance_by_scale.csv")
    assert [(row["scale"], row["num_samples"]) for row in rows] == [("0", "9"), ("1", "9"), ("3", "9")]
    assert list(rows[0]) == ["scale", "distance_mean", "distance_p95", "off_curve", "num_samples", "off_curve_floor"]
    assert all(0 < float(row["distance_mean"]) <= float(row["distance_p95"]) for row in rows)
    assert {row["off_curve_floor"] for row in rows} == {rows[0]["off_curve_floor"]}
    assert float(rows[0]["off_curve_floor"]) < 0.1
    assert (tmp_path / "distance_by_scale.png").is_file()
    assert "further than 0.05 from the curve, 9 samples (true points: " in capsys.readouterr().out


def test_images_without_a_judge_are_refused(fit):
    with pytest.raises(ValueError, match="the data are images: add callbacks=default"):
        fit(callbacks=[MeasureByScale(Recipe(), SCALES, "unused")])


def test_points_with_a_judge_are_refused(train_points):
    with pytest.raises(ValueError, match="the data are points: add callbacks=patterns"):
        train_points(MeasureByScale(Recipe(), SCALES, "unused", judge=lambda data: None))
