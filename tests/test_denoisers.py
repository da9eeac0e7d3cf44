import copy
import pickle

import pytest
import torch
from torch import nn

from guided_diffusion.denoisers import PARAMETERIZATIONS, Denoiser, Prediction
from guided_diffusion.schedules import Cosine, perturb

F64 = torch.float64
every_parameterization = pytest.mark.parametrize("parameterization", PARAMETERIZATIONS)
t = torch.tensor([0.01, 0.5, 1.0], dtype=F64)


class Returns(nn.Module):
    """A network whose output is fixed; it keeps what it was called with."""

    def __init__(self, output):
        super().__init__()
        self.output = output

    def forward(self, *inputs):
        self.inputs = inputs
        return self.output


@pytest.fixture
def x0():
    return torch.randn(3, 1, 4, 4, dtype=F64)


@pytest.fixture
def eps():
    return torch.randn(3, 1, 4, 4, dtype=F64)


@every_parameterization
def test_the_exact_output_gives_back_image_and_noise(parameterization, schedule, x0, eps):
    denoiser = Denoiser(nn.Identity(), schedule, parameterization)
    denoiser.backbone = Returns(denoiser.target(x0, eps, t))
    prediction = denoiser(perturb(x0, eps, t, schedule), t, None)
    torch.testing.assert_close(prediction.x0, x0, rtol=0, atol=1e-10)
    torch.testing.assert_close(prediction.eps, eps, rtol=0, atol=1e-10)


@every_parameterization
def test_any_output_makes_image_and_noise_that_add_up_to_the_input(parameterization, schedule, x0):
    output, x_t = torch.randn(2, 3, 1, 4, 4, dtype=F64)
    prediction = Denoiser(Returns(output), schedule, parameterization)(x_t, t, None)
    torch.testing.assert_close(perturb(*prediction, t, schedule), x_t, rtol=0, atol=1e-10)


def test_targets_are_what_their_names_say(schedule, x0, eps):
    targets = {name: Denoiser(nn.Identity(), schedule, name).target(x0, eps, t) for name in PARAMETERIZATIONS}
    alpha, sigma = (value[:, None, None, None] for value in schedule(t))
    assert torch.equal(targets["eps"], eps)
    assert torch.equal(targets["x0"], x0)
    torch.testing.assert_close(targets["v"], alpha * eps - sigma * x0, rtol=0, atol=1e-12)


@every_parameterization
def test_snr_weight_is_the_ratio_of_squared_errors(parameterization, schedule):
    first, second, x_t = torch.randn(3, 3, 1, 4, 4, dtype=F64)
    x0 = [Denoiser(Returns(output), schedule, parameterization)(x_t, t, None).x0 for output in (first, second)]
    weight = PARAMETERIZATIONS[parameterization].snr_weight(schedule.log_snr(t).exp())
    expected = (first - second).square().sum((1, 2, 3)) / (x0[0] - x0[1]).square().sum((1, 2, 3))
    torch.testing.assert_close(weight, expected, rtol=1e-9, atol=0)


def test_the_log_snr_and_the_labels_are_passed_to_the_network(schedule, x0):
    backbone, y = Returns(x0), torch.tensor([0, -1, 2])
    Denoiser(backbone, schedule)(x0, t, y)
    x_t, log_snr, labels = backbone.inputs
    assert x_t is x0
    assert labels is y
    assert torch.equal(log_snr, schedule.log_snr(t))


def test_what_a_network_puts_out_in_half_precision_is_used_in_the_precision_of_the_image(schedule, x0):
    denoiser = Denoiser(Returns(x0.bfloat16()), schedule)
    assert denoiser.output(x0, t).dtype == F64
    assert denoiser(x0, t).x0.dtype == denoiser(x0, t).eps.dtype == F64


@every_parameterization
def test_a_parameterization_survives_copies_and_other_processes(parameterization):
    row = PARAMETERIZATIONS[parameterization]
    assert pickle.loads(pickle.dumps(row)) is row
    assert copy.deepcopy(Denoiser(nn.Identity(), Cosine(), parameterization)).parameterization is row


def test_unknown_parameterization_raises():
    with pytest.raises(ValueError, match="parameterization must be one of eps, x0, v, got 'score'"):
        Denoiser(nn.Identity(), Cosine(), "score")


def test_a_prediction_from_x0_keeps_x0_and_adds_up_to_the_input(schedule, x0):
    x_t = torch.randn_like(x0)
    prediction = Prediction.from_x0(x0, x_t, t, schedule)
    assert prediction.x0 is x0
    torch.testing.assert_close(perturb(*prediction, t, schedule), x_t, rtol=0, atol=1e-12)
