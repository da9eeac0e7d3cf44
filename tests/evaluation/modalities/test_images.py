from dataclasses import replace

import pytest
import torch
from PIL import Image

from guided_diffusion.data import Fake, normalise
from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.evaluation.metrics.images import LabelledSamples
from guided_diffusion.evaluation.modalities import modality
from guided_diffusion.evaluation.plan import Plan
from guided_diffusion.networks import JudgeNet

IMAGES = modality("images")


def plan(num_samples):
    return Plan([0.0, 2.0], num_samples, 3, (1, 8, 8), batch_size=10)


@pytest.fixture
def judge():
    return Judge(JudgeNet(1, 8, 3, 8).eval(), ceiling=0.75)


def test_samples_of_every_scale_are_measured_with_the_judge(judge):
    data = Fake(8, 8, num_classes=3)
    images, labels = data.split("test")
    samples = LabelledSamples(normalise(images[:30]), labels[:30], torch.zeros(30))
    found = IMAGES.examine(data, lambda given: judge if given is data else None, [samples, samples], plan(10))
    assert len(found.findings) == 2
    assert found.about == {"judge": "judge", "judge_ceiling": 0.75, "cross_check": None}
    assert found.floors["fld"] > 0
    pictures = found.findings[0].pictures
    assert pictures.confusion.sum() == 30
    assert pictures.strip.shape == (18, 1, 8, 8)  # as many of each class
    assert pictures.means.shape == (3, 1, 8, 8)
    assert torch.equal(torch.from_numpy(pictures.means[1]), samples.samples[labels[:30] == 1].mean(0))
    assert pictures.uncertain_probabilities.tolist() == sorted(pictures.probabilities)[:20]


def test_a_second_judge_adds_its_accuracy(judge):
    data = Fake(8, 8, num_classes=3)
    images, labels = data.split("test")
    samples = LabelledSamples(normalise(images[:9]), labels[:9], torch.zeros(9))
    pair = replace(judge, cross_check=replace(judge, name="second"))
    found = IMAGES.examine(data, lambda data: pair, [samples], plan(3))
    assert found.about["cross_check"] == {"name": "second", "ceiling": 0.75}
    assert found.findings[0].measured["cross_accuracy"].value == found.findings[0].measured["accuracy"].value


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_the_strip_has_ten_columns_and_drawings_one_row(channels, mode, fabricate):
    row = fabricate(channels=channels).rows[0]
    strip = IMAGES.strip(row, ["a", "b", "c"])
    assert (strip.mode, strip.size) == (mode, (10 * 10 + 2, 2 * 10 + 2))
    assert {name: one.shape[0] for name, one in IMAGES.drawings(row).items()} == {"strip": 36, "means": 36}


def test_a_gallery_has_a_row_for_each_class_or_scale(tmp_path):
    gallery = IMAGES.gallery(lambda: pytest.fail("images need no data"))
    samples = torch.zeros(2, 3, 1, 28, 28)
    gallery.save(samples, ["a", "b"], tmp_path / "classes.png")
    gallery.save_by_scale(samples[None], ["w = 1"], ["a", "b"], tmp_path / "scales.png")
    (width, height), (wide, low) = (Image.open(tmp_path / f"{name}.png").size for name in ("classes", "scales"))
    assert wide > width + 3 * 28
    assert low < height - 28
    assert [gallery.animated(classes) for classes in (1, 3, 10, 100)] == [10, 3, 1, 1]


def size(save, samples, *arguments, path):
    save(samples, *arguments, path)
    return Image.open(path).size


def test_a_wide_grid_by_scale_has_a_row_for_each_class_and_scale(tmp_path):
    gallery = IMAGES.gallery(lambda: pytest.fail("images need no data"))
    samples = torch.zeros(2, 3, 8, 1, 28, 28)  # 24 columns in a row for each scale
    wide, high = size(gallery.save_by_scale, samples, ["w = 1", "w = 2"], ["a", "b", "c"], path=tmp_path / "scales.png")
    assert 0.9 < wide / high < 1.6  # 8 columns and 6 rows


def test_a_picture_of_stages_has_them_side_by_side(tmp_path):
    gallery = IMAGES.gallery(lambda: pytest.fail("images need no data"))
    stages = {"from": torch.zeros(2, 1, 1, 28, 28), "samples": torch.zeros(2, 5, 1, 28, 28)}
    wide, high = size(gallery.save_stages, stages, ["a", "b"], path=tmp_path / "stages.png")
    assert wide > 6 * 28 * 2
    assert high < 3 * 60


def test_a_picture_of_very_many_samples_shows_the_first_ones(tmp_path):
    gallery = IMAGES.gallery(lambda: pytest.fail("images need no data"))
    samples = torch.zeros(1, 100, 1, 8, 8)
    sizes = [
        size(gallery.save, one, ["a"], path=tmp_path / "many.png") for one in (samples, samples.repeat(1, 9, 1, 1, 1))
    ]
    assert sizes[0] == sizes[1]


def test_the_summary_names_the_best_scales_the_ceiling_and_the_floor(fabricate):
    text = IMAGES.summary(fabricate())
    assert "best judge accuracy is 80.0 % (95 % interval 75.0 % to 82.0 %), at w = 3." in text
    assert "on real test images, is 98.8 %." in text
    assert "lowest Fréchet distance is 0.5 (95 % interval 0.45 to 0.52), at w = 0." in text
    assert "two sets of real images, is 0.125." in text
    assert "network, JudgeNet." in text


def test_the_summary_of_a_sweep_names_the_curves(fabricate):
    text = IMAGES.summary(fabricate(jobs=[{"p": "0.1"}, {"p": "0.2"}]))
    assert "at w = 3 (cfg, ddim, 25 steps, p = 0.1)." in text
    assert "at w = 0 (cfg, ddim, 25 steps, p = 0.2)." in text


@pytest.mark.parametrize(("ceiling", "explained"), [(0.7, True), (0.9, False)])
def test_the_summary_explains_an_accuracy_above_the_ceiling(ceiling, explained, fabricate):
    results = fabricate()
    text = IMAGES.summary(replace(results, about={**results.about, "judge_ceiling": ceiling}))
    assert ("easier to classify than real images" in text) == explained


def test_the_table_has_a_line_for_each_row(fabricate, capsys):
    IMAGES.print_table(fabricate())
    _, judge, heads, *rows = capsys.readouterr().out.splitlines()
    assert judge == "judge JudgeNet: 98.8% on real test images; Fréchet floor 0.12"
    assert heads.split()[:3] == ["w", "accuracy", "fld"]
    assert [row.split()[:2] for row in rows] == [["0", "50.00%"], ["1", "66.67%"], ["3", "80.00%"]]
