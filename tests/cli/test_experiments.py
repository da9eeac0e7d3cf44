"""Settings of an experiment are dropped if they belong to an option that the command line replaces."""

import pytest
from omegaconf import OmegaConf

from guided_diffusion.cli.experiments import drop_unused_settings


@pytest.mark.parametrize(
    ("overrides", "dropped"),
    [
        (["+experiment=cfg_cifar10", "callbacks=minimal"], ["callbacks.sample_grid"]),
        (["+experiment=cfg_cifar10", "callbacks=sharded"], ["callbacks.ema", "callbacks.sample_grid"]),
        (["+experiment=mnist_best", "guidance=cfg"], ["guidance.base", "guidance.sigma_hi"]),
        (["+experiment=cfg_cifar10", "callbacks=default"], []),
        (["+experiment=cfg_cifar10", "logger=[wandb,tensorboard]", "strategy=ddp"], []),
        (["callbacks=minimal", "+callbacks.sample_grid.every_n_steps=3"], []),
        (["+experiment=cfg_cifar10", "callbacks=minimal", "+callbacks.smaple_grid.every_n_steps=3"],
         ["callbacks.sample_grid"]),
    ],
)  # fmt: skip
def test_settings_for_options_that_are_not_chosen_are_dropped(overrides, dropped, compose):
    config = compose(*overrides)
    assert sorted(drop_unused_settings(config, overrides)) == sorted(dropped)
    assert all(OmegaConf.select(config, key) is None for key in dropped)


@pytest.mark.slow
def test_an_experiment_with_minimal_callbacks_trains(call, minimal, tmp_path):
    arguments = ["+experiment=cfg_cifar10", *minimal, "network=unet_8", "network.width=8", "output_dir=here"]
    called = call("train", *(one for one in arguments if not one.startswith("judge")))
    assert called.status == 0, called.err
    assert "callbacks.sample_grid of the experiment" in called.out
    assert (tmp_path / "here" / "checkpoints" / "last.ckpt").is_file()


def test_a_setting_of_another_optimizer_is_dropped(compose):
    overrides = ["+experiment=cfg_cifar10_small", "module/optimizer=adamw"]
    config = compose(*overrides)
    assert drop_unused_settings(config, overrides) == ["module.optimizer.adamw_lr"]
    assert "adamw_lr" not in config.module.optimizer
    assert config.module.optimizer._target_ == "torch.optim.AdamW"


def test_a_setting_of_the_times_of_training_is_dropped_with_its_option(compose):
    overrides = ["+experiment=cfg_mnist", "time_sampling=uniform"]
    config = compose(*overrides)
    assert drop_unused_settings(config, overrides) == ["time_sampling.mean"]


def test_a_setting_of_the_grid_of_times_is_dropped_with_its_option(compose):
    """An experiment may choose ``sampler/times=shifted`` and its shift."""
    overrides = ["+experiment=cfg_patterns", "sampler/times=uniform"]
    config = compose(*overrides[:1], "sampler/times=shifted", "sampler.times.shift=2")
    assert drop_unused_settings(config, overrides) == ["sampler.times.shift"]
    assert "shift" not in config.sampler.times
