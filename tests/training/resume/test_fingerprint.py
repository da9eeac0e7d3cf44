"""Which keys of a config decide the weights, and when two configs are the same training."""

import copy
import functools
from itertools import zip_longest
from pathlib import Path
from zipfile import ZipFile

import pytest
from omegaconf import OmegaConf

from guided_diffusion.cli.config import CONFIG_PATH
from guided_diffusion.training.resume.fingerprint import (
    NEUTRAL_KEYS,
    VALIDATION_KEYS,
    WEIGHT_KEYS,
    differing_keys,
    differing_weight_keys,
    flatten,
    is_below,
    same_training,
    training_fingerprint,
)


def options(group, prefix=""):
    return [f"{prefix}{group}={path.stem}" for path in sorted(Path(CONFIG_PATH, group).glob("*.yaml"))]


GROUPS = [
    options("experiment", "+"),
    *map(
        options, ("callbacks", "strategy", "logger", "guidance", "judge", "guide", "time_sampling", "module/optimizer")
    ),
]
"""The options that bring keys of their own."""
OPTIONS = [tuple(filter(None, several)) for several in zip_longest(*GROUPS)]
"""Each option once, several together, as composing a config takes time."""


@pytest.fixture(scope="session")
def config(compose):
    """``config(*overrides)`` is a resolved config, which a test may change."""

    @functools.cache
    def resolved(*overrides):
        composed = compose("classifier=a.ckpt", "trainer.precision=32-true", *overrides)
        return OmegaConf.to_container(composed, resolve=True)

    return lambda *overrides: copy.deepcopy(resolved(*overrides))


@pytest.mark.parametrize(
    "several",
    [*OPTIONS[:10], *(pytest.param(several, marks=pytest.mark.slow) for several in OPTIONS[10:])],
    ids=" ".join,
)
def test_every_key_of_every_option_is_in_one_of_the_lists(several, config):
    listed = (*WEIGHT_KEYS, *VALIDATION_KEYS, *NEUTRAL_KEYS)
    assert [key for key in flatten(config(*several)) if not is_below(key, listed)] == []


@pytest.mark.parametrize(
    "override",
    [
        "guidance.scale=7",
        "guidance=classifier",
        "sampler=heun",
        "scales=[1]",
        pytest.param("threshold=dynamic", marks=pytest.mark.slow),
        pytest.param("judge.steps=9", marks=pytest.mark.slow),
        pytest.param("logger=wandb", marks=pytest.mark.slow),
        pytest.param("callbacks.accuracy.num_samples=7", marks=pytest.mark.slow),
        "callbacks=minimal",
        "callbacks.last.every_n_steps=7",
        "output_dir=elsewhere",
        "data.num_workers=2",
    ],
)
def test_a_setting_that_leaves_the_weights_alone_leaves_the_fingerprint_alone(override, config):
    assert training_fingerprint(config()) == training_fingerprint(config(override))
    assert differing_weight_keys(config(), config(override)) == []


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "label_dropout=0.3",
        pytest.param("callbacks.ema.decay=0.9", marks=pytest.mark.slow),
        "trainer.max_steps=7",
        pytest.param("trainer.precision=64-true", marks=pytest.mark.slow),
        "schedule=linear_beta",
        pytest.param("weighting=min_snr", marks=pytest.mark.slow),
        pytest.param("data.batch_size=7", marks=pytest.mark.slow),
        "data.balance=true",
        "module.optimizer.lr=1",
    ],
)
def test_a_setting_that_decides_the_weights_changes_the_fingerprint(override, config):
    assert training_fingerprint(config()) != training_fingerprint(config(override))
    assert differing_weight_keys(config(), config(override))


def test_an_attack_on_the_classifier_decides_the_weights_and_older_configs_have_none(config):
    plain = config("module=classifier", "network=classifier_8")
    attacked = config("module=classifier", "network=classifier_8", "module/adversarial=pgd")
    weaker = config("module=classifier", "network=classifier_8", "module/adversarial=pgd", "module.adversarial.steps=3")
    assert len({training_fingerprint(one) for one in (plain, attacked, weaker)}) == 3
    assert differing_weight_keys(attacked, weaker) == ["module.adversarial.steps"]
    del plain["module"]["adversarial"]
    assert same_training(plain, config("module=classifier", "network=classifier_8"))


@pytest.mark.parametrize(
    "override",
    [
        "trainer.val_check_interval=7",  # the job records other validations
        "+callbacks.stop._target_=pytorch_lightning.callbacks.EarlyStopping",  # nobody knows what it does
    ],
)
def test_validations_and_unknown_callbacks_change_the_fingerprint_but_not_the_known_weights(override, config):
    assert training_fingerprint(config()) != training_fingerprint(config(override))
    assert differing_weight_keys(config(), config(override)) == []


@pytest.mark.parametrize(
    ("override", "same"),
    [
        ("output_dir=elsewhere", True),
        ("resume=auto", True),
        ("data.num_workers=2", True),
        ("trainer.enable_model_summary=true", True),
        ("scales=[1]", False),
    ],
)
def test_the_same_training_is_equal_in_everything_but_its_folder_and_what_changes_no_result(override, same, config):
    assert same_training(config(), config(override)) is same


def test_keys_that_follow_another_and_the_places_in_a_list_are_not_named(config):
    assert differing_keys(config(), config("scales=[1,2]", "seed=3")) == ["scales", "seed"]
    assert differing_keys(config("callbacks=minimal"), config("callbacks=minimal", "label_dropout=0.3")) == [
        "label_dropout"
    ]


@pytest.mark.slow
def test_the_content_of_a_folder_or_file_of_images_decides_the_weights_and_not_its_place(config, tmp_path):
    def trained_on(folder, name, content):
        (tmp_path / folder / "cat").mkdir(parents=True)
        (tmp_path / folder / "cat" / name).write_bytes(content)
        with ZipFile(tmp_path / f"{folder}.npz", "w") as archive:
            archive.writestr(name, content)
        of_folder = config("data=image_folder", f"data.root={tmp_path / folder}")
        return of_folder, config("data=npz", f"data.path={tmp_path / folder}.npz")

    here, moved = trained_on("a", "1.png", b"image"), trained_on("b", "1.png", b"image")
    for other in (trained_on("c", "1.png", b"images"), trained_on("d", "2.png", b"image")):
        for one, same, changed in zip(here, moved, other, strict=True):
            assert differing_weight_keys(one, same) == []
            assert training_fingerprint(one) == training_fingerprint(same)
            assert differing_weight_keys(one, changed) == ["data.content"]
            assert training_fingerprint(one) != training_fingerprint(changed)


def test_a_nested_config_is_flattened_to_dotted_keys():
    nested = {"a": {"b": 1, "c": [2, {"d": 3}]}, "e": {}, "f": []}
    assert flatten(nested) == {"a.b": 1, "a.c.0": 2, "a.c.1.d": 3, "e": {}, "f": []}


@pytest.mark.parametrize(("key", "below"), [("a.b", True), ("a.b.c", True), ("a", False), ("a.bc", False)])
def test_a_key_is_below_itself_and_its_parents(key, below):
    assert is_below(key, ["x", "a.b"]) is below


# Initial weights


def test_the_content_of_initial_weights_and_not_their_path_is_part_of_a_training(config):
    here, moved, other = (
        config() | {"init_from": {"path": path, "content": content}}
        for path, content in [("a.ckpt", "0123"), ("b.ckpt", "0123"), ("a.ckpt", "4567")]
    )
    assert same_training(here, moved)
    assert training_fingerprint(here) == training_fingerprint(moved)
    assert differing_weight_keys(here, moved) == []
    for different in (other, config()):
        assert not same_training(here, different)
        assert training_fingerprint(here) != training_fingerprint(different)
        assert differing_weight_keys(here, different) == ["init_from"]


@pytest.mark.slow
def test_a_config_from_before_there_were_guides_and_times_is_the_same_training(config):
    overrides = "guidance=classifier"
    older = config(overrides)
    del older["guide"], older["time_sampling"], older["module"]["time_sampling"], older["callbacks"]["ema"]["warm_up"]
    del older["guidance"]["sigma_lo"], older["guidance"]["sigma_hi"]
    assert same_training(older, config(overrides))
    assert same_training(config(overrides), older)
    assert training_fingerprint(older) == training_fingerprint(config(overrides))
    for other in ("time_sampling=log_normal", "guidance.sigma_hi=1.5", "callbacks.ema.warm_up=21"):
        assert not same_training(older, config(overrides, other))
    assert not same_training(config(overrides, "guide.steps=3"), config(overrides))


def test_a_config_from_before_a_key_was_added_is_the_same_training(config):
    older = config()
    del older["init_from"], older["trainer"]["accumulate_grad_batches"], older["module"]["optimizer"]["ns_steps"]
    older["callbacks"]["learning_rate"]["_target_"] = "pytorch_lightning.callbacks.LearningRateMonitor"
    assert same_training(older, config())
    assert differing_weight_keys(older, config("trainer.accumulate_grad_batches=2")) == [
        "trainer.accumulate_grad_batches"
    ]
    assert differing_weight_keys(older, config("module.optimizer.ns_steps=3")) == ["module.optimizer.ns_steps"]
