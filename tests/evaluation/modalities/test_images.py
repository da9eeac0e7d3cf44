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
from guided_diffusion.samplers import Step

IMAGES = modality("images")


def plan(num_samples, class_sizes=(22, 21, 21)):
    return Plan([0.0, 2.0], num_samples, 3, (1, 8, 8), batch_size=10, class_sizes=class_sizes)


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
    assert pictures.labels.tolist() == labels[:30].tolist()
    assert pictures.uncertain_probabilities.tolist() == sorted(pictures.probabilities)[:20]


def test_a_second_judge_adds_its_accuracy(judge):
    data = Fake(8, 8, num_classes=3)
    images, labels = data.split("test")
    samples = LabelledSamples(normalise(images[:9]), labels[:9], torch.zeros(9))
    pair = replace(judge, cross_check=replace(judge, name="second"))
    found = IMAGES.examine(data, lambda data: pair, [samples], plan(3))
    assert found.about["cross_check"] == {"name": "second", "ceiling": 0.75}
    assert found.findings[0].measured["cross_accuracy"].value == found.findings[0].measured["accuracy"].value
    assert found.columns == ("cross_accuracy", "cross_accuracy_low", "cross_accuracy_high")


@pytest.mark.parametrize(
    "data", [Fake(8, 8, num_classes=1), Fake(8, 8, channels=2, image_size=[12, 20])], ids=["one class", "2x12x20"]
)
def test_one_class_and_images_of_any_shape_are_measured(data, fabricate):
    images, labels = data.split("test")
    samples = LabelledSamples(normalise(images[:30]), labels[:30], torch.zeros(30))
    network = JudgeNet(data.channels, data.image_size, data.num_classes, 8).eval()
    any_plan = Plan([0.0], 3, data.num_classes, data.shape, batch_size=10)
    found = IMAGES.examine(data, lambda _: Judge(network, 1.0), [samples], any_plan).findings[0]
    assert found.measured["fld"].value > 0
    assert found.measured["nearest"].value == pytest.approx(1, abs=0.2)
    if data.num_classes == 1:
        assert found.measured["accuracy"] == found.measured["f1"] == pytest.approx((1, 0.8865, 1), abs=1e-4)
        labels = torch.zeros(6, dtype=torch.long)
        curve = IMAGES.measure_by_scale(normalise(images[None, :6]), labels, data, Judge(network, 1.0), 0)
        assert curve.values == {"accuracy": [1.0]}
        assert "its features are those of random weights" in IMAGES.summary(fabricate(classes=1))


def test_with_equal_labels_the_ceiling_is_the_mean_over_the_classes(judge):
    data = Fake(8, 8, num_classes=3)
    data.split("test").labels[:] = torch.tensor([0] * 60 + [1] * 4)
    images, labels = data.split("test")
    samples = LabelledSamples(normalise(images[:9]), torch.arange(9) % 3, torch.zeros(9))
    right = (judge.classify(normalise(images)) == labels).double()
    found = IMAGES.examine(data, lambda data: judge, [samples], plan(3, class_sizes=None))
    assert found.about["judge_ceiling"] == pytest.approx((right[:60].mean() + right[60:].mean()).item() / 2)


def test_the_strip_shows_every_class_and_the_counts_of_pictures_are_those_of_the_results(judge):
    data = Fake(8, 8, num_classes=3)
    data.split("test").labels[:] = torch.tensor([0] * 62 + [1] * 2)
    drawn = plan(20, data.class_counts("test").tolist())
    values = torch.linspace(-1, 1, drawn.per_scale)[:, None, None, None].repeat(1, 1, 8, 8)
    samples = LabelledSamples(values, drawn.labels, torch.zeros(drawn.per_scale), drawn.num_extra)
    (found, _) = IMAGES.examine(data, lambda data: judge, [samples, samples], drawn).findings
    first = [values[drawn.labels == label][:6] for label in range(3)]
    strip = torch.stack(first, dim=1).flatten(0, 1)
    assert torch.equal(torch.from_numpy(found.pictures.strip), strip)
    assert len(found.pictures.predictions) == len(found.pictures.labels) == 60
    assert found.pictures.confusion.sum(1).tolist() == [58, 20, 20]


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB"), (4, "L")])
def test_the_strip_has_ten_columns_and_drawings_one_row(channels, mode, fabricate):
    row = fabricate(channels=channels).rows[0]
    strip, width = IMAGES.strip(row, ["a", "b", "c"]), 8 if channels < 4 else 4 * 9 - 1
    assert (strip.mode, strip.size) == (mode, (10 * (width + 2) + 2, 2 * 10 + 2))
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


def test_frames_are_not_wider_than_a_video_can_be():
    many = torch.zeros(1000, 2, 12, 20)
    (frame,) = IMAGES.gallery(lambda: None).frames([Step(torch.tensor(1.0), many, many)], ["a"] * 1000)
    assert 7_000 < frame.shape[1] <= 8_000


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


def test_summary_and_table_say_how_labels_were_drawn(fabricate, capsys):
    results = fabricate()
    rows = [replace(row, labels="proportional", num_samples=10) for row in results.rows]
    proportional = replace(results, rows=rows)
    drawn = "Classes are drawn in the proportions of the test data."
    extra = "2 more samples of rare classes count in the measures of these classes only."
    assert IMAGES.summary(proportional).endswith(f"{drawn} {extra}")
    IMAGES.print_table(proportional)
    assert capsys.readouterr().out.splitlines()[2:4] == [drawn, extra]
    equal = replace(results, rows=[replace(row, labels="equal") for row in results.rows])
    assert IMAGES.summary(equal).endswith("Every class is drawn equally often and counts the same in the test data.")


def test_the_table_has_a_line_for_each_row(fabricate, capsys):
    IMAGES.print_table(fabricate())
    _, judge, heads, *rows = capsys.readouterr().out.splitlines()
    assert judge == "judge JudgeNet: 98.8% on real test images; Fréchet floor 0.12"
    assert heads.split()[:3] == ["w", "accuracy", "fld"]
    assert [row.split()[:2] for row in rows] == [["0", "50.00%"], ["1", "66.67%"], ["3", "80.00%"]]


def test_the_printed_table_has_inception_distances_only_if_they_were_measured(fabricate, with_inception, capsys):
    results = fabricate(scales=(1.0,))
    IMAGES.print_table(results)
    assert "inception" not in capsys.readouterr().out.lower()
    IMAGES.print_table(replace(results, rows=[with_inception(row) for row in results.rows]))
    *_, compared, sentence, heads, row = capsys.readouterr().out.splitlines()
    assert sentence.startswith("The lowest Inception FID is 11, at w = 1.")
    assert "12 samples (ema weights) with the 10000 images of the test split" in compared
    assert heads.split()[-2:] == ["inception_fid", "inception_kid"]
    assert row.split()[-2:] == ["11", "0.02"]
