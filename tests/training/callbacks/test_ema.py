import pickle

import pytest
import torch
from pytorch_lightning import Callback

from guided_diffusion.training.callbacks import EMA, LastCheckpoint, Resumable
from guided_diffusion.training.callbacks.ema import WarmedUpDecay, evaluation_weights


def parameters(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()])


def state(saved):
    """The weights in a part of a checkpoint, as one vector."""
    return torch.cat([tensor.flatten() for tensor in saved.values()])


class Weights(Callback):
    """Notes the weights after every step, those in validation and those after it."""

    def __init__(self):
        self.train, self.val, self.after_val = [], [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.train.append(parameters(pl_module))

    def on_validation_batch_start(self, trainer, pl_module, batch, batch_idx, dataloader_idx=0):
        self.val.append(parameters(pl_module))

    def on_validation_end(self, trainer, pl_module):
        self.after_val.append(parameters(pl_module))


def averages(weights, decay=0.999):
    """Yield the averages computed by hand: the first weights, then d average + (1 - d) weights."""
    average = weights[0].clone()
    yield average
    for n, new in enumerate(weights[1:], start=1):
        d = min(decay, (1 + n) / (10 + n))
        average = d * average + (1 - d) * new
        yield average


@pytest.mark.parametrize("decay", [-0.1, 1, 1.5])
def test_a_decay_outside_of_0_to_1_is_refused(decay):
    with pytest.raises(ValueError, match=rf"decay must be in \[0, 1\), got {decay}"):
        EMA(decay)


@pytest.mark.parametrize(("n", "rate"), [(0, 0.1), (1, 2 / 11), (10, 0.55), (8989, 0.999), (10**6, 0.999)])
def test_the_decay_warms_up(n, rate):
    average = torch.ones(3)
    WarmedUpDecay(0.999)([average], [torch.zeros(3)], n)
    torch.testing.assert_close(average, torch.full((3,), rate))


@pytest.mark.parametrize(("n", "rate"), [(0, 1 / 21), (10, 11 / 31), (10**6, 0.999)])
def test_a_longer_warm_up_forgets_faster(n, rate):
    average = torch.ones(3)
    WarmedUpDecay(0.999, 21)([average], [torch.zeros(3)], n)
    torch.testing.assert_close(average, torch.full((3,), rate))


def test_a_warm_up_below_one_step_is_refused():
    with pytest.raises(ValueError, match=r"warm_up must be at least 1, got 0\.5"):
        EMA(warm_up=0.5)


def test_buffers_of_integers_are_copied():
    average = torch.tensor([1, 2])
    WarmedUpDecay(0.999)([average], [torch.tensor([7, 8])], 5)
    assert average.tolist() == [7, 8]


@pytest.mark.parametrize("decay", [0.25, 0.999])
def test_the_average_follows_the_formula(decay, fit):
    weights = Weights()
    _, module = fit(callbacks=[weights, EMA(decay)])
    assert len(weights.train) == 4
    *_, expected = averages(weights.train, decay)
    torch.testing.assert_close(parameters(module), expected, rtol=1e-5, atol=1e-7)


def test_validation_uses_the_average_and_gives_the_weights_back(fit):
    weights = Weights()
    fit(callbacks=[weights, EMA()])  # validates after steps 2 and 4, two batches each
    expected = list(averages(weights.train))
    assert len(weights.val) == 4
    for seen, step in zip(weights.val, (1, 1, 3, 3), strict=True):
        torch.testing.assert_close(seen, expected[step], rtol=1e-5, atol=1e-7)
        assert not torch.equal(seen, weights.train[step])
    for seen, step in zip(weights.after_val, (1, 3), strict=True):
        assert torch.equal(seen, weights.train[step])


def test_the_callback_does_not_change_the_training(fit):
    with_ema, without = Weights(), Weights()
    fit(callbacks=[with_ema, EMA()])
    fit(callbacks=[without])
    assert all(torch.equal(a, b) for a, b in zip(with_ema.train, without.train, strict=True))


def test_a_checkpoint_holds_the_average_and_the_weights(fit, tmp_path):
    weights = Weights()
    fit(callbacks=[weights, EMA(), LastCheckpoint(str(tmp_path))])
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    *_, expected = averages(weights.train)
    torch.testing.assert_close(state(saved["state_dict"]), expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(state(saved["current_model_state"]), weights.train[-1])
    assert not torch.equal(state(saved["state_dict"]), state(saved["current_model_state"]))


def test_the_average_is_evaluated_and_without_one_the_weights(fit):
    class Judging(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.before = parameters(pl_module)
            with evaluation_weights(trainer, pl_module):
                self.judged = parameters(pl_module)
            self.after = parameters(pl_module)

    weights, judging = Weights(), Judging()
    fit(callbacks=[weights, EMA(), judging])
    *_, expected = averages(weights.train)
    torch.testing.assert_close(judging.judged, expected, rtol=1e-5, atol=1e-7)
    assert torch.equal(judging.before, judging.after)
    fit(callbacks=[judging])
    assert torch.equal(judging.judged, judging.before)


def test_the_weights_come_back_after_an_error(fit):
    class Failing(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            before = parameters(pl_module)
            with pytest.raises(RuntimeError, match="stop"), evaluation_weights(trainer, pl_module):
                raise RuntimeError("stop")
            assert torch.equal(parameters(pl_module), before)
            self.checked = True

    failing = Failing()
    fit("trainer.max_steps=2", callbacks=[EMA(), failing])
    assert failing.checked


def test_it_can_be_pickled():
    copy = pickle.loads(pickle.dumps(EMA(0.5)))
    assert copy._kwargs["multi_avg_fn"] == WarmedUpDecay(0.5)


@pytest.mark.slow
def test_a_resumed_training_ends_with_the_weights_of_one_without_a_break(fit, tmp_path):
    """Two epochs of four steps each; it fails in the second and continues from the end of the first."""

    class Break(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            if trainer.global_step == 6:
                raise RuntimeError("the power has failed")

    def train(folder, *callbacks, ckpt_path=None):
        last = LastCheckpoint(str(tmp_path / folder), every_n_steps=4)
        epochs = ["data.num_train=96", "trainer.max_steps=8", "network.dropout=0.5"]
        fit(
            *epochs,
            "trainer.val_check_interval=3",
            callbacks=[Resumable(), EMA(), *callbacks, last],
            ckpt_path=ckpt_path,
        )
        return torch.load(last.path, weights_only=True)

    whole = train("whole")
    with pytest.raises(RuntimeError, match="the power has failed"):
        train("broken", Break())
    first = torch.load(tmp_path / "broken" / "last.ckpt", weights_only=True)
    second = train("broken", ckpt_path=tmp_path / "broken" / "last.ckpt")
    assert (whole["global_step"], first["global_step"], second["global_step"]) == (8, 4, 8)
    for part in ("state_dict", "current_model_state"):
        assert torch.equal(state(whole[part]), state(second[part]))
        assert not torch.equal(state(whole[part]), state(first[part]))
