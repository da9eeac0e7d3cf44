from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR
from torchmetrics.functional.classification import multiclass_calibration_error

from guided_diffusion.checkpoints.record import build_network
from guided_diffusion.data import Batch
from guided_diffusion.losses import UniformTimes
from guided_diffusion.schedules import Cosine, LinearBeta, perturb
from guided_diffusion.training.modules import ClassifierModule
from guided_diffusion.utils.instantiate import build

SCHEDULE = LinearBeta()


class Known(nn.Module):
    """A network whose logits depend only on the noise level: sure of class 0 at little noise, undecided at much."""

    def __init__(self, num_classes=3):
        super().__init__()
        self.num_classes = num_classes
        self.weight = nn.Parameter(torch.ones(()))
        self.seen = []

    def forward(self, x_t, log_snr):
        self.seen.append((x_t, log_snr))
        first = (1 - SCHEDULE.time(log_snr)) * self.weight
        others = -0.001 * torch.arange(1, self.num_classes).expand(len(x_t), -1)
        return torch.cat([first[:, None], others], dim=1)


def module(num_classes=3, seed=0, **settings):
    network = Known(num_classes)
    made = ClassifierModule(network, SCHEDULE, partial(SGD, lr=0.01), partial(ConstantLR, factor=1), seed, **settings)
    made.logged = {}
    made.log = lambda name, value, **_: made.logged.update({name: float(value)})
    made.log_dict = lambda values, **_: made.logged.update({name: float(value) for name, value in values.items()})
    return made, network


def batch(size=8):
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.rand(size, 1, 8, 8, generator=generator) * 2 - 1, torch.arange(size) % 3)


def test_the_loss_is_the_cross_entropy_on_noisy_images():
    model, network = module()
    loss = model.training_step(batch(), 0)
    x0, eps, t = model.draw_noise(batch().samples, model.training_generator(0), UniformTimes())
    ((x_t, log_snr),) = network.seen
    torch.testing.assert_close(x_t, perturb(x0, eps, t, SCHEDULE))
    torch.testing.assert_close(log_snr, SCHEDULE.log_snr(t))
    assert ((t * 8).ceil() == torch.arange(1, 9)).all()  # stratified
    logits = network(x_t, log_snr)
    assert loss == nn.functional.cross_entropy(logits, batch().labels)
    assert model.logged["train/accuracy"] == pytest.approx(3 / 8)  # it always predicts 0


def test_the_random_numbers_of_a_step_follow_from_seed_and_batch():
    def noise(batch_idx=0, **arguments):
        torch.manual_seed(torch.seed())
        model, network = module(**arguments)
        model.training_step(batch(), batch_idx)
        return network.seen[0][0]

    assert torch.equal(noise(), noise())
    assert not torch.equal(noise(), noise(seed=1))
    assert not torch.equal(noise(), noise(batch_idx=1))


def test_an_attack_changes_the_samples_of_training_and_not_those_of_validation():
    def halve(classifier, x_t, t, y):
        assert torch.equal(y, batch().labels)
        return x_t / 2

    (plain, seen), (attacked, seen_after) = module(), module(adversarial=halve)
    for model in (plain, attacked):
        model.training_step(batch(), 0)
        model.validation_step(batch(), 0)
    assert torch.equal(seen.seen[0][0] / 2, seen_after.seen[0][0])
    for (x_t, _), (after, _) in zip(seen.seen[1:], seen_after.seen[1:], strict=True):
        assert torch.equal(x_t, after)


@pytest.mark.slow
def test_a_training_with_an_attack_is_the_same_twice_and_another_than_without(fit, classifier_overrides):
    attack = ["module/adversarial=pgd", "module.adversarial.steps=2"]
    networks = [fit(*classifier_overrides, *overrides)[1].classifier for overrides in (attack, attack, [])]
    first, again, plain = (torch.cat([value.flatten() for value in each.parameters()]) for each in networks)
    assert torch.equal(first, again)
    assert not torch.equal(first, plain)


def test_validation_sees_every_image_in_every_band_always_with_the_same_noise():
    model, network = module()
    logged = []
    for _ in range(2):
        model.validation_step(batch(), 0)
        model.on_validation_epoch_end()
        logged.append(dict(model.logged))
    assert logged[0] == logged[1]
    seen = network.seen[:10]
    for band, (x_t, log_snr) in enumerate(seen):
        t = SCHEDULE.time(log_snr)
        assert len(x_t) == 8
        assert ((band / 10 < t) & (t <= (band + 1) / 10 + 1e-4)).all()
        assert torch.equal(x_t, network.seen[10 + band][0])


def test_each_band_has_its_own_accuracy_and_calibration_error():
    model, network = module()
    labels = torch.tensor([0, 1, 0, 0])
    model.validation_step(Batch(batch(4).samples, labels), 0)
    model.on_validation_epoch_end()
    for band, (_, log_snr) in enumerate(network.seen[:10]):
        name = f"t_{band / 10:.2f}_{(band + 1) / 10:.2f}"
        assert model.logged[f"val/accuracy_{name}"] == 0.75
        probabilities = network(torch.zeros(4, 1, 8, 8), log_snr).softmax(1)
        expected = multiclass_calibration_error(probabilities, labels, 3, n_bins=15, norm="l1")
        assert model.logged[f"val/calibration_error_{name}"] == pytest.approx(float(expected))
    assert model.logged["val/accuracy"] == 0.75


def test_top5_accuracy_is_logged_above_ten_classes():
    """Also if both accuracies are 1 on the first batch, after which torchmetrics would merge them."""
    model, _ = module(num_classes=12)  # it ranks 0 first, then 1, 2, ...
    for labels in ([0, 0, 0, 0], [0, 11, 11, 11]):
        model.validation_step(Batch(batch(4).samples, torch.tensor(labels)), 0)
    model.on_validation_epoch_end()
    assert model.logged["val/accuracy_t_0.00_0.10"] == 5 / 8
    assert model.logged["val/accuracy_top5_t_0.00_0.10"] == 5 / 8
    model.validation_step(Batch(batch(4).samples, torch.tensor([0, 1, 2, 3])), 0)
    model.on_validation_epoch_end()
    assert model.logged["val/accuracy_t_0.00_0.10"] == 1 / 4
    assert model.logged["val/accuracy_top5_t_0.00_0.10"] == 1


def test_top5_accuracy_is_not_logged_for_ten_classes():
    model, _ = module(num_classes=10)
    model.validation_step(batch(4), 0)
    model.on_validation_epoch_end()
    assert not [name for name in model.logged if "top5" in name]


@pytest.mark.slow
def test_digits_are_learned(fit, losses, classifier_overrides):
    small = ["data=digits", "data.batch_size=64", "trainer.max_steps=250", "trainer.val_check_interval=250"]
    fit(*classifier_overrides, *small, callbacks=[losses])
    accuracies = [value for name, value in losses.val[-1].items() if name.startswith("val/accuracy_t")]
    assert len(accuracies) == 10
    assert accuracies[0] > 0.6
    assert accuracies[0] > accuracies[-1] + 0.3  # at pure noise there is nothing to see


def test_the_module_has_the_schedule_of_its_classifier():
    model, _ = module()
    assert model.schedule == model.classifier.schedule == SCHEDULE != Cosine()


def test_a_single_class_is_refused(compose, classifier_overrides):
    config = compose(*classifier_overrides)
    with pytest.raises(ValueError, match="module: a classifier needs at least 2 classes, and the data have 1"):
        build(config.module, network=build_network(config.network, (1, 8, 8), 1))
