from functools import partial

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning.strategies import SingleDeviceStrategy

from guided_diffusion.guidance import ClassifierGuidance
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.training.callbacks import EMA, MeasureByScale, SampleGrid
from guided_diffusion.training.callbacks.base import SamplingCallback
from guided_diffusion.utils.instantiate import build


class Recorder(SamplingCallback):
    """Records at which steps it samples, and with which weights."""

    def __init__(self, every_n_steps=0):
        super().__init__(Recipe(), [1], "unused", every_n_steps)
        self.steps, self.weights = [], []

    def sample(self, trainer, sweep, data):
        self.steps.append(trainer.global_step)
        self.weights.append(weights(trainer.lightning_module))


def weights(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).clone()


def assert_same_weights(one, other):
    for (name, tensor), expected in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(tensor, expected), name


@pytest.mark.parametrize(
    ("every_n_steps", "steps"),
    [
        (0, [5]),
        pytest.param(1, [1, 2, 3, 4, 5], marks=pytest.mark.slow),
        (2, [2, 4, 5]),
        (5, [5]),
        pytest.param(9, [5], marks=pytest.mark.slow),
    ],
)
def test_samples_at_the_interval_and_once_at_the_end(every_n_steps, steps, fit):
    recorder = Recorder(every_n_steps)
    fit("trainer.max_steps=5", "trainer.num_sanity_val_steps=1", callbacks=[recorder])
    assert recorder.steps == steps


def test_a_negative_interval_is_refused():
    with pytest.raises(ValueError, match="every_n_steps must be at least 0, got -1"):
        Recorder(-1)


@pytest.mark.parametrize("callback", [SampleGrid, partial(MeasureByScale, judge=lambda data: None)])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": []}, "scales must hold at least one number"),
        ({"scales": [0, float("nan")]}, "scale must be finite"),
        ({"scales": [float("inf")]}, "scale must be finite"),
        ({"num_samples": 0}, "num_samples must be at least 1, got 0"),
        ({"guide": "nowhere.ckpt"}, "there is no checkpoint at"),
    ],
)
def test_a_wrong_setting_is_refused_before_training(callback, arguments, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        callback(**{"recipe": Recipe(), "scales": [1], "output_dir": "unused"} | arguments)


@pytest.mark.parametrize("recorder_first", [True, False])
def test_the_averaged_weights_are_sampled_in_any_order_of_callbacks(recorder_first, fit):
    recorder, ema = Recorder(2), EMA(0.5)
    averages = []

    class Averages(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            averages.append(weights(ema._average_model.module))

    fit(callbacks=[*([recorder, ema] if recorder_first else [ema, recorder]), Averages()])
    assert recorder.steps == [2, 4]
    assert torch.equal(recorder.weights[-1], averages[-1])


WITH_SAMPLES = ["callbacks.sample_grid.every_n_steps=1", "callbacks.accuracy.every_n_steps=2"]


@pytest.mark.parametrize("dropout", [pytest.param(0, marks=pytest.mark.slow), 0.5])
def test_weights_are_bit_identical_with_and_without_sampling(dropout, fit, compose, tiny, tmp_path):
    """The judge is trained during the training, with a global seed of its own."""
    config = compose(*tiny, *WITH_SAMPLES, "judge.steps=3", output_dir=tmp_path).callbacks
    callbacks = [build(config[name]) for name in ("ema", "throughput", "sample_grid", "accuracy")]
    modes = []

    class Modes(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            modes.append({part.training for part in pl_module.modules()})

    _, sampled = fit(f"network.dropout={dropout}", callbacks=[*callbacks, Modes()])
    assert len(list((tmp_path / "samples").iterdir())) == 4
    assert modes == [{True}] * 4  # every part is in training mode again
    _, plain = fit(f"network.dropout={dropout}", callbacks=[EMA()])
    assert_same_weights(sampled, plain)


# The training of a classifier


@pytest.fixture
def guide(run_dir):
    return str(run_dir / "checkpoints" / "last.ckpt")


@pytest.fixture
def classifier_callbacks(compose, tiny, classifier_overrides, tmp_path):
    """The sampling callbacks of the config with these overrides."""

    def built(*overrides):
        config = compose(*tiny, *classifier_overrides, *overrides, output_dir=tmp_path).callbacks
        return [build(config[name]) for name in ("sample_grid", "accuracy")]

    return built


def test_a_classifier_without_a_guide_samples_nothing(fit, classifier_overrides, classifier_callbacks, tmp_path):
    fit(*classifier_overrides, callbacks=classifier_callbacks())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_classifier_has_bit_identical_weights_with_and_without_sampling(
    fit, classifier_overrides, classifier_callbacks, guide, tmp_path
):
    callbacks = classifier_callbacks(
        f"callbacks.guide={guide}", "callbacks.sample_grid.every_n_steps=1", "network.dropout=0.5"
    )
    _, sampled = fit(*classifier_overrides, "network.dropout=0.5", callbacks=[EMA(), *callbacks])
    assert len(list((tmp_path / "samples").iterdir())) == 4
    assert (tmp_path / "accuracy_by_scale.csv").is_file()
    _, plain = fit(*classifier_overrides, "network.dropout=0.5", callbacks=[EMA()])
    assert_same_weights(sampled, plain)


@pytest.mark.parametrize("grid_first", [True, False])
def test_the_averaged_classifier_guides_in_eval_mode(grid_first, fit, classifier_overrides, guide, tmp_path):
    seen, raw, averages = [], [], []

    class Grid(SampleGrid):
        def sample(self, trainer, sweep, data):
            record = lambda module, *_: seen.append((module.training, weights(module)))  # noqa: E731
            handle = trainer.lightning_module.classifier.register_forward_hook(record)
            sweep(torch.arange(2))
            handle.remove()

    class Averages(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            averages.append(weights(ema._average_model.module.classifier))
            raw.append(weights(pl_module.classifier))

    ema = EMA(0.5)
    recipe = Recipe(ClassifierGuidance(), sampler=Sampler(steps=2))
    grid = Grid(recipe, [2.0], str(tmp_path), every_n_steps=2, guide=guide)
    fit(*classifier_overrides, callbacks=[*([grid, ema] if grid_first else [ema, grid]), Averages()])
    assert {training for training, _ in seen} == {False}
    at_step_2 = seen[0][1]
    assert torch.equal(at_step_2, averages[0 if grid_first else 1])  # the average when the grid's turn comes
    assert not torch.equal(at_step_2, raw[1])


def test_a_guide_needs_a_guidance_with_a_classifier(fit, classifier_overrides, guide, tmp_path):
    with pytest.raises(ValueError, match="add guidance=classifier"):
        fit(*classifier_overrides, callbacks=[SampleGrid(Recipe(), [2.0], str(tmp_path), guide=guide)])


class Failing(Recorder):
    """Fails at these steps, as if the picture could not be drawn."""

    def __init__(self, *steps):
        super().__init__(every_n_steps=1)
        self.failing = steps

    def sample(self, trainer, sweep, data):
        super().sample(trainer, sweep, data)
        if trainer.global_step in self.failing:
            raise TypeError("Invalid shape")


def test_a_failure_during_the_training_is_a_warning(fit, caplog):
    callback = Failing(2)
    fit("trainer.max_steps=4", callbacks=[callback])
    assert callback.steps == [1, 2, 3, 4]
    assert "Failing failed at step 2, the training goes on: TypeError: Invalid shape" in caplog.text


def test_after_a_failure_the_other_processes_do_not_wait(fit, monkeypatch):
    """They wait at a barrier, which the process that samples must reach as often as without a failure."""
    waits = []
    monkeypatch.setattr(SingleDeviceStrategy, "barrier", lambda self, *arguments, **options: waits.append(self))
    fit("trainer.max_steps=4", callbacks=[Failing()])
    without_failure = len(waits)
    fit("trainer.max_steps=4", callbacks=[Failing(2)])
    assert len(waits) == 2 * without_failure


def test_a_failure_at_the_end_says_where_the_checkpoints_are(fit):
    with pytest.raises(ValueError, match=r"^TypeError: Invalid shape; Failing failed after the training, whose check"):
        fit(callbacks=[Failing(4)])
