from functools import partial

import pytest
import torch
from pytorch_lightning import Callback
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR

from guided_diffusion.data import Batch
from guided_diffusion.losses import MinSNR, Uniform
from guided_diffusion.networks import UNet
from guided_diffusion.schedules import Cosine
from guided_diffusion.training.modules import DiffusionModule

BANDS = ["0.00_0.25", "0.25_0.50", "0.50_0.75", "0.75_1.00"]


def module(label_dropout=0.1, seed=0, channels=1, dropout=0.0, lr=0.01, **arguments):
    """A small module in training mode, always with the same weights, none of them zero."""
    torch.manual_seed(1)
    network = UNet(channels, 8, 3, width=8, multipliers=(1, 2), blocks=1, dropout=dropout)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    arguments = {"schedule": Cosine(), "parameterization": "v", "weighting": Uniform()} | arguments
    return DiffusionModule(
        network,
        optimizer=partial(SGD, lr=lr),
        lr_scheduler=partial(ConstantLR, factor=1),
        label_dropout=label_dropout,
        seed=seed,
        **arguments,
    )


def batch(channels=1):
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.rand(16, channels, 8, 8, generator=generator) * 2 - 1, torch.arange(16) % 3)


def loss(batch_idx=0, **arguments):
    torch.manual_seed(torch.seed())  # draws elsewhere must not matter
    with pytest.warns(UserWarning, match="self.log"):  # there is no trainer
        return module(**arguments).training_step(batch(arguments.get("channels", 1)), batch_idx).item()


@pytest.mark.parametrize("label_dropout", [-0.1, 1.5, float("nan")])
def test_a_label_dropout_outside_of_0_to_1_is_refused(label_dropout):
    with pytest.raises(ValueError, match=rf"label_dropout must be in \[0, 1\], got {label_dropout}"):
        module(label_dropout=label_dropout)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_random_numbers_of_a_step_follow_from_seed_epoch_batch_and_rank(channels, monkeypatch):
    def one(**arguments):
        return loss(channels=channels, dropout=0.5, **arguments)

    first = one()
    assert first == one()
    assert first != one(seed=1)
    assert first != one(batch_idx=1)
    with monkeypatch.context() as patch:
        patch.setattr(DiffusionModule, "current_epoch", 1)
        assert first != one()
    monkeypatch.setattr(DiffusionModule, "global_rank", 1)
    assert first != one()


def test_a_training_does_not_depend_on_random_numbers_drawn_elsewhere(fit, new_losses):
    class Drawing(Callback):
        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            torch.rand(3)

    plain, drawing = new_losses(), new_losses()
    fit("network.dropout=0.5", callbacks=[plain])
    fit("network.dropout=0.5", callbacks=[drawing, Drawing()])
    assert len(plain.train) == 4
    assert plain.train == drawing.train


def test_the_same_weights_always_have_the_same_validation_loss(fit, losses):
    fit(
        "module.optimizer.lr=0",
        "data.num_train=192",
        "trainer.max_steps=12",
        "trainer.val_check_interval=3",
        callbacks=[losses],
    )
    assert len(losses.val) == 4  # in two epochs
    assert losses.val[0]["val/loss"] > 0
    assert losses.val == losses.val[:1] * 4


def test_validation_keeps_every_label_and_uses_no_dropout(fit, new_losses):
    def val(*overrides):
        losses = new_losses()
        fit(
            "module.optimizer.lr=0",
            "trainer.max_steps=2",
            "+trainer.limit_val_batches=1",
            *overrides,
            callbacks=[losses],
        )
        return losses.val[0]

    reference = val("label_dropout=0")
    assert val("label_dropout=1") == reference
    assert val("network.dropout=0.5") == reference


def test_the_validation_loss_is_logged_for_each_quarter_of_time(fit, losses):
    fit(callbacks=[losses])
    assert len(losses.val) == 2
    for logged in losses.val:
        assert set(logged) == {"val/loss", *(f"val/loss_t_{band}" for band in BANDS)}
        bands = [logged[f"val/loss_t_{band}"] for band in BANDS]
        assert len(set(bands)) == 4
        assert sum(bands) / 4 == pytest.approx(logged["val/loss"], rel=1e-5)  # times are stratified


def test_the_loss_of_a_quarter_is_the_mean_over_its_times():
    model = module()
    logged = {}
    model.log = lambda name, value, **_: logged.update({name: float(value)})
    model._losses = lambda *_: (torch.arange(8.0), torch.arange(1, 9) / 8)
    model.validation_step(batch(), 0)
    model.on_validation_epoch_end()
    assert [logged[f"val/loss_t_{band}"] for band in BANDS] == [0.5, 2.5, 4.5, 6.5]


@pytest.mark.parametrize(("label_dropout", "trained"), [(0, [True, True, True, False]), (1, [False] * 3 + [True])])
def test_the_unconditional_model_trains_only_on_dropped_labels(label_dropout, trained):
    model = module(label_dropout=label_dropout)
    model.log = lambda *_, **__: None
    model.training_step(batch(), 0).backward()
    gradient = model.denoiser.backbone.condition.label.weight.grad
    assert gradient.abs().sum(1).bool().tolist() == trained


@pytest.mark.parametrize("parameterization", ["eps", "x0", "v"])
@pytest.mark.parametrize("weighting", [Uniform(), MinSNR()])
def test_every_parameterization_with_every_weighting_has_a_finite_loss_and_gradient(parameterization, weighting):
    model = module(parameterization=parameterization, weighting=weighting)
    model.log = lambda *_, **__: None
    value = model.training_step(batch(), 0)
    value.backward()
    assert 0 < value < torch.inf
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_channels_last_changes_only_how_numbers_are_stored():
    first, last = loss(), loss(channels_last=True)
    assert last == pytest.approx(first, rel=1e-5)
    convolution = module(channels_last=True).denoiser.backbone.input.weight
    assert convolution.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("channels", "golden"),
    [
        (1, [0.651967, 0.632189, 0.585400, 0.606244]),
        pytest.param(3, [0.654655, 0.636589, 0.634506, 0.646488], marks=pytest.mark.slow),
    ],
)
def test_the_first_twenty_steps_have_the_recorded_losses(channels, golden, fit, losses):
    fit(f"data.channels={channels}", "trainer.max_steps=20", "trainer.val_check_interval=20", callbacks=[losses])
    assert losses.train[4::5] == pytest.approx(golden, rel=1e-3)


@pytest.mark.slow
def test_the_learning_rate_schedule_spans_the_training(fit):
    class Rates(Callback):
        rates = ()

        def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
            self.rates += (trainer.optimizers[0].param_groups[0]["lr"],)

    callback = Rates()
    fit("trainer.max_steps=20", "trainer.val_check_interval=20", callbacks=[callback])
    assert callback.rates[0] == pytest.approx(2e-3 / 25)
    assert max(callback.rates) == callback.rates[1] == pytest.approx(2e-3)
    assert callback.rates[-1] < 1e-4


@pytest.mark.slow
def test_digits_are_learned(fit, losses):
    small = ["data=digits", "data.batch_size=32", "network.width=16"]
    fit(*small, "trainer.max_steps=80", "trainer.val_check_interval=80", callbacks=[losses])
    assert sum(losses.train[-10:]) < 0.6 * sum(losses.train[:10])


@pytest.mark.slow
def test_one_batch_is_memorized(fit, losses):
    one_batch = ["data.num_train=2", "data.batch_size=2", "data.validation_size=0", "label_dropout=0"]
    fit(*one_batch, "network.width=16", "trainer.max_steps=200", callbacks=[losses])
    assert sum(losses.train[-20:]) / 20 < 0.4 * losses.train[0]


def test_a_checkpoint_holds_the_record_of_the_model():
    model = module()
    model.record = {"format": 1}
    checkpoint = {}
    model.on_save_checkpoint(checkpoint)
    assert checkpoint == {"guided_diffusion": {"format": 1}}
