"""What is checked of a guidance with the model that it guides, before any sample is drawn."""

from dataclasses import dataclass

import pytest

from guided_diffusion.checkpoints.loading import load
from guided_diffusion.cli.restore import check_guidance_suits
from guided_diffusion.denoisers import Prediction
from guided_diffusion.guidance import ClassifierFree, Guidance, Reconstruction
from guided_diffusion.guidance.base import per_evaluation
from guided_diffusion.utils.validation import DoesNotSuit


@dataclass(frozen=True)
class Doubled(Guidance):
    """A wrong guidance: it changes x0 and leaves eps as it is."""

    scale: float = 1.0

    @per_evaluation
    def __call__(self, denoise, schedule):
        def guided(x_t, t, y):
            x0, eps = denoise(x_t, t, y)
            return Prediction(2 * x0, eps)

        return guided


@pytest.fixture
def model(run_dir):
    return load(run_dir / "checkpoints" / "last.ckpt")


def test_a_guidance_whose_predictions_are_of_another_sample_is_refused(model):
    check_guidance_suits(ClassifierFree(7.0), model)
    with pytest.raises(ValueError, match=r"the predictions of Doubled are wrong, as alpha x0 \+ sigma eps is not x_t"):
        check_guidance_suits(Doubled(), model)


def test_a_guidance_that_the_model_does_not_suit_can_be_left_out_of_a_sweep(model):
    with pytest.raises(DoesNotSuit, match=r"reconstruction guidance needs a classifier: add classifier=PATH"):
        check_guidance_suits(Reconstruction(), model)
