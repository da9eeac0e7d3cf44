"""The peers of time_to_quality; importing diffusers takes seconds, so these tests are slow ones."""

import importlib
from itertools import islice

import pytest
import torch

from guided_diffusion.data import Fake
from guided_diffusion.samplers import Sampler, ddim
from guided_diffusion.schedules import LinearBeta

pytestmark = pytest.mark.slow
pytest.importorskip("diffusers")


@pytest.fixture(scope="module")
def peers():
    return importlib.import_module("contestants.peers")


@pytest.fixture(scope="module")
def example():
    return importlib.import_module("contestants.diffusers_example")


@pytest.fixture(scope="module")
def lesson():
    return importlib.import_module("contestants.teapearce")


@pytest.fixture
def data():
    return Fake(channels=1, image_size=28, num_classes=10, num_train=40, num_test=20, batch_size=4, validation_size=8)


@pytest.fixture
def settings():
    from contestants.base import Settings

    return Settings((), 0, Sampler(ddim, 2))


def rates(optimization, steps):
    """The learning rate of each step."""
    optimizer, scheduler = optimization([torch.nn.Parameter(torch.zeros(1))], steps)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def test_the_networks_have_the_sizes_that_are_stated(example, lesson):
    with torch.device("meta"):
        networks = [make(1, 10, LinearBeta()) for make in (example.ExampleUNet, lesson.ContextUNet)]
    counts = [sum(parameter.numel() for parameter in network.parameters()) for network in networks]
    assert counts == [3_693_121, 6_585_601]  # the second is that of the lesson's own ContextUnet


@pytest.mark.parametrize("num_steps", [401, 1000])
def test_a_network_is_told_the_whole_step_of_its_own_schedule(num_steps, peers):
    schedule, steps = LinearBeta(num_steps), torch.arange(1, num_steps + 1)
    found = peers.step_of(schedule.log_snr(steps / num_steps), schedule)
    torch.testing.assert_close(found, steps.float(), atol=1e-3, rtol=0)


def test_the_lessons_noise_is_that_of_its_401_betas(lesson):
    peer = lesson.teapearce()
    betas = 1e-4 + (0.02 - 1e-4) * torch.arange(401, dtype=torch.float64) / 400
    alpha, _ = peer.schedule(torch.arange(peer.first_step, 402, dtype=torch.float64) / 401)
    torch.testing.assert_close(alpha.square(), (1 - betas).cumprod(0)[1:])


def test_a_label_changes_the_output_and_none_is_the_same_as_minus_one(example, lesson):
    for peer in (example.diffusers_example(), lesson.teapearce()):
        network = peer.network(1, 10, peer.schedule).eval()
        x, log_snr = torch.randn(2, 1, 28, 28), peer.schedule.log_snr(torch.tensor([0.3, 0.9]))
        with torch.no_grad():
            labelled = network(x, log_snr, torch.tensor([3, 4]))
            without, none = network(x, log_snr, torch.tensor([-1, -1])), network(x, log_snr, None)
        assert labelled.shape == x.shape
        assert not torch.equal(labelled, without)
        assert torch.equal(without, none)


def test_the_example_warms_up_and_then_falls_as_a_cosine(example):
    found = rates(example.optimization, 100)
    assert found[0] == 0
    assert found[10] == pytest.approx(1e-4)
    assert found[55] == pytest.approx(5e-5)
    assert found[-1] < 1e-7


def test_the_lesson_lowers_its_rate_in_twenty_stages(lesson):
    found = rates(lesson.optimization, 100)
    assert found == pytest.approx([1e-4 * (1 - step // 5 / 20) for step in range(100)])


def test_a_peer_trains_and_its_samples_lie_in_the_range_of_images(example, lesson, data, settings):
    from contestants.base import Calibration

    for peer in (example.diffusers_example(batch_size=4), lesson.teapearce(batch_size=4)):
        trained = peer.train(data, settings, 2, Calibration(1.0, 0.0, autocast=False, channels_last=True))
        images = trained.sample(torch.tensor([0, 1]), data.shape, 2.0, seed=0)
        assert trained.seconds > 0
        assert images.shape == (2, 1, 28, 28)
        assert images.abs().max() <= 1


def test_the_batches_of_an_epoch_are_all_training_images(peers, data):
    found = [labels for _, labels in islice(peers.batches(data, 10, torch.Generator().manual_seed(0)), 4)]
    assert [len(labels) for labels in found] == [10, 10, 10, 2]
    assert torch.equal(torch.cat(found).sort().values, data.split("train").labels.sort().values)
