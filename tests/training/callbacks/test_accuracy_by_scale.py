import csv

import pytest
import torch
from PIL import Image
from pytorch_lightning.loggers import CSVLogger
from torch import nn

from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.guidance import ClassifierFree
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.training.callbacks import AccuracyByScale

SCALES = [0, 1.5, 3]


class Says(nn.Module):
    """A classifier that says what it is told to, whatever it sees."""

    def __init__(self, classes):
        super().__init__()
        self.classes = classes

    def forward(self, images):
        return nn.functional.one_hot(torch.as_tensor(self.classes)[: len(images)], 10).float()


@pytest.fixture
def judged(fit, tmp_path):
    """The rows of the file, as one judge sees them."""

    def rows(classes, *overrides, **arguments):
        recipe = Recipe(ClassifierFree(), sampler=Sampler(steps=1))
        judge = Judge(Says(classes), ceiling=0.875)
        callback = AccuracyByScale(recipe, SCALES, lambda data: judge, str(tmp_path), num_samples=40)
        fit(*overrides, callbacks=[callback], **arguments)
        with (tmp_path / "accuracy_by_scale.csv").open() as file:
            return list(csv.reader(file))

    return rows


RIGHT = [n % 10 for n in range(40)]


def test_the_file_has_these_columns_and_a_row_for_each_scale(judged):
    rows = judged(RIGHT)
    assert rows[0] == ["scale", "accuracy", "num_samples", "judge_ceiling"]
    assert [row[0] for row in rows[1:]] == ["0", "1.5", "3"]
    assert [row[2:] for row in rows[1:]] == [["40", "0.875000"]] * 3


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("says", "accuracy"), [(RIGHT, 1.0), ([3] * 40, 0.1), ([0] * 20 + RIGHT[20:], 0.55)])
def test_accuracy_is_the_share_in_which_the_judge_sees_the_label(says, accuracy, channels, judged):
    rows = judged(says, f"data.channels={channels}")
    assert [float(row[1]) for row in rows[1:]] == [accuracy] * 3


def test_the_judge_sees_samples_of_every_scale(fit, tmp_path):
    seen = []

    class Notes(nn.Module):
        def forward(self, images):
            seen.append(images)
            return torch.zeros(len(images), 10)

    recipe = Recipe(ClassifierFree(), sampler=Sampler(steps=2))
    judge = Judge(Notes(), ceiling=1.0)
    callback = AccuracyByScale(recipe, SCALES, lambda data: judge, str(tmp_path), num_samples=20, seed=7)
    _, module = fit(callbacks=[callback])
    for images, scale in zip(seen, SCALES, strict=True):
        one = Recipe(ClassifierFree(scale), sampler=Sampler(steps=2))
        expected = one.sample(module.denoiser, torch.arange(20) % 10, (1, 8, 8), seed=7)
        torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    assert not torch.equal(seen[0], seen[2])


def test_the_plot_is_written_and_the_table_printed(judged, tmp_path, capsys):
    judged([3] * 40)
    with Image.open(tmp_path / "accuracy_by_scale.png") as picture:
        assert min(picture.size) > 300
    out = capsys.readouterr().out
    assert "judge accuracy over 40 samples; on real test images 87.5%" in out
    assert "w = 1.5     10.0%" in out


def test_the_logger_gets_a_metric_for_each_scale(judged, tmp_path):
    judged(RIGHT, logger=CSVLogger(tmp_path, "", ""))
    with (tmp_path / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert {key: last[key] for key in last if key.startswith("guidance/")} == {
        "guidance/accuracy_w0": "1.0",
        "guidance/accuracy_w1.5": "1.0",
        "guidance/accuracy_w3": "1.0",
    }


def test_no_samples_are_refused():
    with pytest.raises(ValueError, match="num_samples must be at least 1, got 0"):
        AccuracyByScale(Recipe(), SCALES, judge=lambda data: None, output_dir="unused", num_samples=0)
