from dataclasses import replace

import pytest

from guided_diffusion.checkpoints.compatibility import check_match, read_spec
from guided_diffusion.checkpoints.loading import load
from guided_diffusion.checkpoints.record import ModelSpec
from guided_diffusion.schedules import Cosine, LinearBeta

SPEC = ModelSpec("a.ckpt", Cosine(), (1, 8, 8), ("cat", "dog"))


def test_the_spec_of_a_checkpoint_is_that_of_its_model(checkpoint):
    assert read_spec(checkpoint, "diffusion") == load(checkpoint).spec


def test_models_with_equal_properties_match():
    check_match(SPEC, replace(SPEC, source="b.ckpt", schedule=Cosine(-15)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schedule": LinearBeta()}, r"schedule of the first: Cosine.*-15.*; of the second: LinearBeta.*1000.*"),
        ({"schedule": Cosine(-10)}, r"schedule .*-15.*-10.*"),
        ({"shape": (3, 8, 8)}, "shape of images of the first: 1, 8, 8; of the second: 3, 8, 8"),
        ({"class_names": ("cat",)}, "classes of the first: cat, dog; of the second: cat"),
        ({"value_range": (0.0, 1.0)}, r"range of pixels of the first: -1\.0, 1\.0; of the second: 0\.0, 1\.0"),
    ],
)
def test_the_error_for_models_that_do_not_match_states_the_difference(change, message):
    with pytest.raises(ValueError, match=f"^a.ckpt and b.ckpt can't work together: {message}$"):
        check_match(SPEC, replace(SPEC, source="b.ckpt", **change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shape": (2,), "value_range": (0.0, 1.0)}, "range of coordinates of the first"),
        ({"shape": (3,)}, "shape of points of the first: 2; of the second: 3"),
        ({"shape": SPEC.shape}, "shape of samples of the first: 2; of the second: 1, 8, 8"),
    ],
)
def test_points_are_not_called_images(change, message):
    points = replace(SPEC, shape=(2,))
    with pytest.raises(ValueError, match=message):
        check_match(points, replace(points, **change))
