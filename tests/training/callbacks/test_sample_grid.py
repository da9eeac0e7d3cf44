import numpy as np
import pytest
import torch
from PIL import Image

from guided_diffusion.evaluation.modalities import images, points
from guided_diffusion.guidance import ClassifierFree
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.training.callbacks import SampleGrid
from guided_diffusion.utils.instantiate import build

RECIPE = Recipe(ClassifierFree(2.0), sampler=Sampler(steps=2))


@pytest.fixture
def drawn(monkeypatch):
    """The samples, rows and columns of each grid, which is drawn as well."""
    calls = []
    draw = images.save_labelled_grid

    def record(samples, path, rows, columns):
        calls.append((samples, rows, columns))
        draw(samples, path, rows, columns)

    monkeypatch.setattr(images, "save_labelled_grid", record)
    return calls


@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_rows_are_scales_and_columns_are_classes(channels, fit, drawn, tmp_path):
    grid = SampleGrid(RECIPE, [0, 1, 2.5], str(tmp_path))
    fit(f"data.channels={channels}", "data.num_classes=4", callbacks=[grid])
    (samples, rows, columns) = drawn[0]
    assert samples.shape == (3, 4, channels, 8, 8)
    assert rows == ["w = 0", "w = 1", "w = 2.5"]
    assert list(columns) == ["class 0", "class 1", "class 2", "class 3"]


def test_the_file_is_named_after_the_step(fit, tmp_path):
    fit(callbacks=[SampleGrid(RECIPE, [0, 1], str(tmp_path), every_n_steps=2)])
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step_000002.png", "step_000004.png"]
    picture = np.asarray(Image.open(tmp_path / "samples" / "step_000004.png"))
    assert picture.shape[0] >= 2 * 28  # two scales
    assert picture.shape[1] >= 10 * 28  # ten classes


def test_samples_are_those_of_the_trained_model_with_the_same_noise_in_each_row(fit, drawn, tmp_path):
    _, module = fit("data.num_classes=4", callbacks=[SampleGrid(RECIPE, [0, 2], str(tmp_path), seed=5)])
    (samples, _, _) = drawn[0]
    for row, scale in zip(samples, (0.0, 2.0), strict=True):
        recipe = Recipe(ClassifierFree(scale), sampler=Sampler(steps=2))
        expected = recipe.sample(module.denoiser, torch.arange(4), (1, 8, 8), seed=5)
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-5)


def test_only_the_first_classes_are_shown(fit, drawn, tmp_path):
    fit("data.num_classes=30", callbacks=[SampleGrid(RECIPE, [1], str(tmp_path), max_classes=7)])
    (samples, _, columns) = drawn[0]
    assert samples.shape[1] == len(columns) == 7


def test_a_class_may_have_several_samples(fit, drawn, tmp_path):
    fit("data.num_classes=2", callbacks=[SampleGrid(RECIPE, [1], str(tmp_path), num_samples=3)])
    (samples, _, columns) = drawn[0]
    assert samples.shape[1] == 6
    assert list(columns) == ["class 0"] * 3 + ["class 1"] * 3


def test_no_classes_are_refused():
    with pytest.raises(ValueError, match="max_classes must be at least 1, got 0"):
        SampleGrid(RECIPE, [1], "unused", max_classes=0)


def test_points_are_drawn_over_their_density(train_points, compose, tiny_points, monkeypatch, tmp_path):
    calls = []
    draw = points.scatter_grid
    monkeypatch.setattr(points, "scatter_grid", lambda *arguments: calls.append(arguments) or draw(*arguments))
    config = compose("+experiment=cfg_patterns", *tiny_points, output_dir=tmp_path).callbacks
    train_points(build(config.sample_grid))
    ((samples, densities, rows, columns, own),) = calls
    assert samples.shape == (3, 3, 5, 2)
    assert len(densities) == len(columns) == len(own) == 3
    assert rows == ["w = 0", "w = 1", "w = 3"]
    assert (tmp_path / "samples" / "step_000004.png").is_file()
