import numpy as np
import pytest
import torch
from PIL import Image

from guided_diffusion.guidance import ClassifierFree
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.training.callbacks import SampleGrid, sample_grid

RECIPE = Recipe(ClassifierFree(2.0), sampler=Sampler(steps=2))


@pytest.fixture
def drawn(monkeypatch):
    """What is handed to the drawing of the grid, beside the grid itself."""
    calls = []
    draw = sample_grid.save_labelled_grid
    monkeypatch.setattr(
        sample_grid,
        "save_labelled_grid",
        lambda images, path, rows, columns: calls.append((images, rows, columns)) or draw(images, path, rows, columns),
    )
    return calls


@pytest.mark.parametrize("channels", [1, 3])
def test_rows_are_scales_and_columns_are_classes(channels, fit, drawn, tmp_path):
    grid = SampleGrid(RECIPE, [0, 1, 2.5], str(tmp_path))
    fit(f"data.channels={channels}", "data.num_classes=4", callbacks=[grid])
    (images, rows, columns) = drawn[0]
    assert images.shape == (3, 4, channels, 8, 8)
    assert rows == ["w = 0", "w = 1", "w = 2.5"]
    assert list(columns) == ["class 0", "class 1", "class 2", "class 3"]


def test_the_file_is_named_after_the_step(fit, tmp_path):
    fit(callbacks=[SampleGrid(RECIPE, [0, 1], str(tmp_path), every_n_steps=2)])
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == ["step_000002.png", "step_000004.png"]


def test_the_picture_has_room_for_every_image(fit, tmp_path):
    def size(scales, num_classes):
        fit(f"data.num_classes={num_classes}", callbacks=[SampleGrid(RECIPE, scales, str(tmp_path))])
        picture = np.asarray(Image.open(tmp_path / "samples" / "step_000004.png"))
        return picture.shape[:2]

    (height, width), (higher, same_width), (same_height, wider) = (
        size([0, 1], 3),
        size([0, 1, 2, 3], 3),
        size([0, 1], 9),
    )
    assert height >= 2 * 28
    assert width >= 3 * 28
    assert higher >= height + 2 * 28
    assert wider >= width + 6 * 28
    assert abs(same_height - height) < 28
    assert abs(same_width - width) < 28


def test_images_are_those_of_the_trained_model_with_one_noise_down_each_column(fit, drawn, tmp_path):
    _, module = fit("data.num_classes=4", callbacks=[SampleGrid(RECIPE, [0, 2], str(tmp_path), seed=5)])
    (images, _, _) = drawn[0]
    for row, scale in zip(images, (0.0, 2.0), strict=True):
        recipe = Recipe(ClassifierFree(scale), sampler=Sampler(steps=2))
        expected = recipe.sample(module.denoiser, torch.arange(4), (1, 8, 8), seed=5)
        torch.testing.assert_close(row, expected, rtol=0, atol=1e-5)


def test_many_classes_are_cut_to_the_first(fit, drawn, tmp_path):
    fit("data.num_classes=30", callbacks=[SampleGrid(RECIPE, [1], str(tmp_path), max_classes=7)])
    (images, _, columns) = drawn[0]
    assert images.shape[1] == len(columns) == 7
