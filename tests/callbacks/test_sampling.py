from functools import partial

import pytest
import torch
from pytorch_lightning import Callback

from guided_diffusion.callbacks import EMA, AccuracyByScale, SampleGrid
from guided_diffusion.callbacks.sampling import SamplingCallback
from guided_diffusion.config import build
from guided_diffusion.sampling import Recipe


class Noted(SamplingCallback):
    """Notes at which steps it is asked to sample, and with which weights."""

    def __init__(self, every_n_steps=0):
        super().__init__(Recipe(), [1], "unused", every_n_steps)
        self.steps, self.weights = [], []

    def sample(self, trainer, module, data):
        self.steps.append(trainer.global_step)
        self.weights.append([parameter.clone() for parameter in module.denoiser.parameters()])


@pytest.mark.parametrize(
    ("every_n_steps", "steps"), [(0, [5]), (1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (5, [5]), (9, [5])]
)
def test_it_samples_at_the_interval_and_once_at_the_end(every_n_steps, steps, fit):
    noted = Noted(every_n_steps)
    fit("trainer.max_steps=5", "trainer.num_sanity_val_steps=1", callbacks=[noted])
    assert noted.steps == steps


def test_an_interval_below_zero_is_refused():
    with pytest.raises(ValueError, match="every_n_steps must be at least 0, got -1"):
        Noted(-1)


@pytest.mark.parametrize("callback", [SampleGrid, partial(AccuracyByScale, judge=lambda data: None)])
def test_no_scales_are_refused(callback):
    with pytest.raises(ValueError, match="scales must hold at least one number"):
        callback(recipe=Recipe(), scales=[], output_dir="unused")


@pytest.mark.parametrize("first", [True, False])
def test_the_average_is_sampled_from_wherever_the_callback_stands(first, fit):
    noted, ema = Noted(2), EMA(0.5)
    averages = []

    class Averages(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            averages.append([p.clone() for p in ema._average_model.module.denoiser.parameters()])

    fit(callbacks=[*([noted, ema] if first else [ema, noted]), Averages()])
    assert noted.steps == [2, 4]
    assert all(map(torch.equal, noted.weights[-1], averages[-1]))


WITH_SAMPLES = ["callbacks.sample_grid.every_n_steps=1", "callbacks.accuracy.every_n_steps=2"]


@pytest.mark.parametrize("network", ["dropout=0", "dropout=0.5"])
def test_the_weights_are_the_same_to_the_bit_with_and_without_sampling(network, fit, compose, tiny, tmp_path):
    """The judge is trained meanwhile, with a global seed of its own."""
    config = compose(*tiny, *WITH_SAMPLES, "judge.steps=3", output_dir=tmp_path).callbacks
    callbacks = [build(config[name]) for name in ("ema", "throughput", "sample_grid", "accuracy")]
    _, sampled = fit(f"network.{network}", callbacks=callbacks)
    assert len(list((tmp_path / "samples").iterdir())) == 4
    _, plain = fit(f"network.{network}", callbacks=[EMA()])
    for (name, one), other in zip(sampled.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


def test_every_part_returns_to_training_mode(fit, compose, tiny, tmp_path):
    modes = []

    class Modes(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            modes.append({part.training for part in pl_module.modules()})

    config = compose(*tiny, *WITH_SAMPLES, output_dir=tmp_path).callbacks
    fit(callbacks=[build(config.sample_grid), build(config.accuracy), Modes()])
    assert modes == [{True}] * 4


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_scale_that_is_not_finite_is_refused_before_training(scale, tmp_path):
    with pytest.raises(ValueError, match="scale must be finite"):
        SampleGrid(Recipe(), [0, scale], str(tmp_path))
