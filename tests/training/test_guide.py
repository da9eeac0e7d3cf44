from dataclasses import replace
from functools import partial

import pytest
import torch

from guided_diffusion.data import Digits, Fake, Patterns
from guided_diffusion.losses import LogNormalTimes, UniformTimes
from guided_diffusion.networks import MLP, NoisyCNNClassifier, NoisyMLPClassifier
from guided_diffusion.schedules import Cosine
from guided_diffusion.training.guide import GuideTraining

NETWORK = partial(NoisyCNNClassifier, width=8)


@pytest.fixture(scope="module")
def digits():
    return Digits(batch_size=64, validation_size=200)


def weights(classifier):
    return torch.cat([parameter.flatten() for parameter in classifier.state_dict().values()])


def test_it_learns_the_classes_of_noisy_samples(digits):
    classifier = GuideTraining(NETWORK, steps=80, batch_size=64, learning_rate=1e-2)(digits, Cosine())
    images, labels = digits.split("val")
    x_t = images / 127.5 - 1 + 0.1 * torch.randn(images.shape)
    t = Cosine().time(torch.full((len(labels),), 2 * torch.tensor(10.0).log().item()))
    assert (classifier(x_t, t).argmax(1) == labels).float().mean() > 0.8
    assert not classifier.training


def test_it_depends_on_its_seed_alone_and_leaves_the_global_random_state(digits):
    training = GuideTraining(NETWORK, steps=3)
    torch.manual_seed(1)
    state, first = torch.get_rng_state(), weights(training(digits, Cosine()))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(weights(training(digits, Cosine())), first)
    for changed in ({"seed": 1}, {"steps": 4}, {"time_sampling": UniformTimes()}, {"learning_rate": 1e-2}):
        assert not torch.equal(weights(replace(training, **changed)(digits, Cosine())), first)


def test_the_batches_are_of_the_training_split_in_the_range_of_the_model(digits):
    batches = GuideTraining(NETWORK, batch_size=64)._batches(digits)
    drawn = [next(batches) for _ in range(2 * (len(digits.split("train").labels) // 64))]  # two epochs
    assert all(batch.samples.abs().max() <= 1 for batch in drawn)
    own = {image.numpy().tobytes() for image in digits.split("train").samples}
    for epoch in (drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]):
        images = ((torch.cat([batch.samples for batch in epoch]) + 1) * 127.5).round().to(torch.uint8)
        assert {image.numpy().tobytes() for image in images} <= own
    assert not torch.equal(drawn[0].samples, drawn[len(drawn) // 2].samples)
    assert digits.batch_size == 64


def test_images_are_mirrored_as_in_the_training_of_the_model():
    plain, flipped = (Fake(batch_size=8, validation_size=8, flip=flip) for flip in (False, True))
    training = GuideTraining(NETWORK, batch_size=8)
    ours, mirrored = (next(training._batches(data)).samples for data in (plain, flipped))
    changed = (ours != mirrored).flatten(1).any(1)
    assert 0 < changed.sum() < 8
    assert torch.equal(mirrored[changed], ours[changed].flip(-1))


def test_a_small_dataset_is_one_batch():
    data = Fake(batch_size=8, validation_size=8)
    count = len(data.split("train").labels)
    assert len(next(GuideTraining(NETWORK, batch_size=10 * count)._batches(data)).labels) == count


def test_it_trains_on_points():
    data = Patterns(["spiral", "moons"], num_train=50, num_test=10, noise=0.01, batch_size=8, validation_size=10)
    classifier = GuideTraining(partial(NoisyMLPClassifier, width=8), steps=2, batch_size=16)(data, Cosine())
    assert classifier(torch.zeros(3, 2), torch.full((3,), 0.5)).shape == (3, 2)


@pytest.mark.parametrize(
    ("network", "shape", "classes", "message"),
    [
        (NETWORK, (2,), 3, "guide.network is not for points: add guide=points"),
        (partial(NoisyMLPClassifier), (1, 8, 8), 3, "guide.network is not for images: add guide=images"),
        (NETWORK, (1, 4, 8), 3, "guide.network: images of 4x8 are too small"),
        (NETWORK, (1, 8, 8), 1, "a classifier needs at least 2 classes, and the data have 1"),
        (partial(MLP), (2,), 3, "guide.network must return num_classes logits .* and MLP is no classifier"),
    ],
)
def test_a_network_that_can_not_guide_is_refused(network, shape, classes, message):
    with pytest.raises(ValueError, match=message):
        GuideTraining(network).build(shape, classes)


def test_times_that_do_not_suit_the_schedule_are_refused():
    with pytest.raises(ValueError, match=r"^guide\.time_sampling: .*: lower the mean$"):
        GuideTraining(NETWORK, time_sampling=LogNormalTimes(20.0)).check_times(Cosine())
    GuideTraining(NETWORK).check_times(Cosine())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"learning_rate": 0.0}, "learning_rate must be positive, got 0"),
        ({"learning_rate": float("inf")}, "learning_rate must be positive"),
    ],
)
def test_settings_out_of_their_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        GuideTraining(NETWORK, **settings)
