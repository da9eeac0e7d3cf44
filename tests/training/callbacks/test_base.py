from functools import partial

import pytest
import torch
from pytorch_lightning import Callback

from guided_diffusion.guidance import ClassifierGuidance
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.training.callbacks import EMA, AccuracyByScale, SampleGrid
from guided_diffusion.training.callbacks.base import SamplingCallback
from guided_diffusion.utils.instantiate import build


class Noted(SamplingCallback):
    """Notes at which steps it is asked to sample, and with which weights."""

    kind = "images"

    def __init__(self, every_n_steps=0):
        super().__init__(Recipe(), [1], "unused", every_n_steps)
        self.steps, self.weights = [], []

    def sample(self, trainer, sweep, data):
        self.steps.append(trainer.global_step)
        self.weights.append([parameter.clone() for parameter in trainer.lightning_module.parameters()])


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
            averages.append([p.clone() for p in ema._average_model.module.parameters()])

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


# Training a classifier


@pytest.fixture
def guide(run_dir):
    return str(run_dir / "checkpoints" / "last.ckpt")


def sampling(compose, tiny, classifier_overrides, tmp_path, *overrides):
    config = compose(*classifier_overrides, *tiny, *overrides, output_dir=tmp_path).callbacks
    return [build(config[name]) for name in ("sample_grid", "accuracy")]


def test_with_a_guide_a_classifier_is_seen_at_work(classifier_run):
    assert (classifier_run / "samples" / "step_000004.png").is_file()
    assert (classifier_run / "accuracy_by_scale.csv").is_file()


def test_without_a_guide_a_classifier_has_nothing_to_sample(fit, compose, tiny, classifier_overrides, tmp_path):
    fit(*classifier_overrides, callbacks=sampling(compose, tiny, classifier_overrides, tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_a_classifiers_weights_are_the_same_with_and_without_sampling(
    fit, compose, tiny, classifier_overrides, guide, tmp_path
):
    often = [f"callbacks.guide={guide}", "callbacks.sample_grid.every_n_steps=1", "network.dropout=0.5"]
    callbacks = sampling(compose, tiny, classifier_overrides, tmp_path, *often)
    _, sampled = fit(*classifier_overrides, "network.dropout=0.5", callbacks=[EMA(), *callbacks])
    assert len(list((tmp_path / "samples").iterdir())) == 4
    _, plain = fit(*classifier_overrides, "network.dropout=0.5", callbacks=[EMA()])
    for (name, one), other in zip(sampled.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(one, other), name


@pytest.mark.parametrize("first", [True, False])
def test_classifiers_guide_with_their_average_in_eval_mode(first, fit, classifier_overrides, guide, tmp_path):
    seen, raw, averages = [], [], []

    class Grid(SampleGrid):
        def sample(self, trainer, sweep, data):
            note = lambda module, *_: seen.append((module.training, weights(module)))  # noqa: E731
            handle = trainer.lightning_module.classifier.register_forward_hook(note)
            sweep(torch.arange(2))
            handle.remove()

    class Averages(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            averages.append(weights(ema._average_model.module.classifier))
            raw.append(weights(pl_module.classifier))

    ema = EMA(0.5)
    recipe = Recipe(ClassifierGuidance(), sampler=Sampler(steps=2))
    grid = Grid(recipe, [2.0], str(tmp_path), every_n_steps=2, guide=guide)
    fit(*classifier_overrides, callbacks=[*([grid, ema] if first else [ema, grid]), Averages()])
    assert {training for training, _ in seen} == {False}
    at_step_2 = seen[0][1]
    assert torch.equal(at_step_2, averages[0 if first else 1])  # as it stands when the callback's turn comes
    assert not torch.equal(at_step_2, raw[1])


def test_a_guide_needs_a_guidance_with_a_classifier(fit, classifier_overrides, guide, tmp_path):
    with pytest.raises(ValueError, match="add guidance=classifier"):
        fit(*classifier_overrides, callbacks=[SampleGrid(Recipe(), [2.0], str(tmp_path), guide=guide)])


def weights(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).clone()
