import numpy as np
import pytest
import torch
from PIL import Image

from guided_diffusion.data import Patterns
from guided_diffusion.evaluation.metrics.images import LabelledSamples
from guided_diffusion.evaluation.modalities import modality
from guided_diffusion.evaluation.plan import Plan
from guided_diffusion.evaluation.results import Result, Results
from guided_diffusion.samplers import Step

POINTS = modality("points")
NAMES = ["spiral", "moons"]


@pytest.fixture(scope="module")
def data():
    return Patterns(NAMES, num_train=100, num_test=20, noise=0.02, batch_size=10, validation_size=10)


@pytest.fixture(scope="module")
def examined(data):
    """The examination of true points at scale 0 and of points in the centre at scale 2."""
    labels = torch.arange(40) % 2
    true = torch.zeros(40, 2)
    for label, pattern in enumerate(data.patterns):
        true[labels == label] = pattern.generate(20, torch.Generator().manual_seed(label))
    samples = [LabelledSamples(one, labels, torch.zeros(40)) for one in (true, torch.zeros(40, 2))]
    return POINTS.examine(data, lambda data: pytest.fail("no judge"), samples, Plan([0.0, 2.0], 20, 2, (2,), 10))


@pytest.fixture(scope="module")
def results(examined):
    rows = [
        Result(
            method="cfg",
            scale=scale,
            sampler="ddim",
            steps=5,
            num_samples=40,
            measured=found.measured,
            floors=examined.floors,
            nfe=1.0,
            seconds=1.0,
            per_class=found.per_class,
            pictures=found.pictures,
            kind="points",
            columns=POINTS.columns,
        )
        for scale, found in zip((0.0, 2.0), examined.findings, strict=True)
    ]
    return Results(rows, {"kind": "points", "class_names": NAMES})


def test_true_points_are_better_than_points_in_the_centre(examined):
    true, centre = (found.measured for found in examined.findings)
    assert true["off_curve"].value < 0.2 < centre["off_curve"].value
    assert true["sliced_wasserstein"].value < centre["sliced_wasserstein"].value
    assert examined.about == {}
    assert examined.findings[0].pictures.points.shape == (2, 20, 2)
    assert examined.findings[0].pictures.densities.shape[0] == 2


def test_every_column_of_the_table_is_known(results):
    assert list(results.rows[0].row) == list(POINTS.columns)


@pytest.mark.slow
def test_every_plot_has_a_caption_and_is_there_as_png_and_pdf(results, tmp_path):
    plots = POINTS.save_plots(results, tmp_path)
    captioned = {*POINTS.captions, *(f"{name}-cfg-ddim-5" for name in POINTS.captions_of_curve)}
    assert set(plots) == captioned
    assert {path.name for path in (tmp_path / "plots").iterdir()} == {
        f"{name}{suffix}" for name in plots for suffix in (".png", ".pdf")
    }


def test_dashboards_and_pages_show_a_scatter(results):
    row = results.rows[0]
    (drawing,) = POINTS.drawings(row).values()
    assert np.array_equal(drawing, np.asarray(POINTS.strip(row, NAMES)))
    assert drawing.shape[1] > 2 * drawing.shape[0] * 0.8


def test_the_summary_compares_with_true_points(results):
    text = POINTS.summary(results)
    assert "smallest share of points further than 0.05 from their curve is" in text
    assert text.count("at w = 0.") == 2
    assert "For true points it is" in text


def test_the_table_begins_with_true_points(results, capsys):
    POINTS.print_table(results)
    _, heads, *rows = capsys.readouterr().out.splitlines()
    assert heads.split()[0] == "w"
    assert [row.split()[0] for row in rows] == ["true", "0", "2"]


def test_a_gallery_draws_classes_in_the_order_that_was_asked_for(data, tmp_path):
    gallery = POINTS.gallery(lambda: data)
    samples = torch.zeros(2, 10, 2)
    gallery.save(samples, ["moons", "spiral"], tmp_path / "some.png")
    gallery.save_by_scale(samples[None].repeat(3, 1, 1, 1), ["0", "1", "2"], NAMES, tmp_path / "scales.png")
    (width, height), (same, higher) = (Image.open(tmp_path / f"{name}.png").size for name in ("some", "scales"))
    assert same == width
    assert higher > 2.5 * height


def test_a_picture_of_stages_has_a_row_for_each_and_a_column_for_each_class(data, tmp_path):
    gallery = POINTS.gallery(lambda: data)
    points = torch.zeros(5, 1, 2)  # rows of one point; each class gets a panel with all of its points
    names = ["moons", "spiral", "moons", "spiral", "moons"]
    gallery.save_stages({"from": points, "samples": points.repeat(1, 4, 1)}, names, tmp_path / "stages.png")
    width, height = Image.open(tmp_path / "stages.png").size
    assert 0.9 < width / height < 1.1


def test_an_animation_has_a_frame_for_each_step(data):
    steps = [Step(t, torch.zeros(6, 2), torch.ones(6, 2)) for t in torch.tensor([1.0, 0.5])]
    frames = list(POINTS.gallery(lambda: data).frames(steps, ["moons", "spiral"]))
    assert len(frames) == 2
    assert not torch.equal(*frames)  # the time is written
