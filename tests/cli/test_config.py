import importlib.util
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.errors import ConfigCompositionException
from hydra.utils import get_class
from omegaconf import OmegaConf
from PIL import Image
from pytorch_lightning.strategies import Strategy

from guided_diffusion import samplers
from guided_diffusion.checkpoints.record import build_network
from guided_diffusion.cli.config import CONFIG_PATH
from guided_diffusion.cli.train import train
from guided_diffusion.data import LabelledDataModule
from guided_diffusion.evaluation.judge import JudgePair, JudgeSource
from guided_diffusion.guidance import Guidance, Wrapper
from guided_diffusion.losses import MinSNR
from guided_diffusion.networks import (
    MLP,
    FastUNet,
    NoisyClassifier,
    NoisyCNNClassifier,
    NoisyMLPClassifier,
    UNet,
)
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.schedules import Schedule
from guided_diffusion.training.callbacks import EMA
from guided_diffusion.training.callbacks.base import SamplingCallback
from guided_diffusion.utils.instantiate import build

CONF = Path(CONFIG_PATH)
POINTS = {"mlp": MLP, "classifier_2d": NoisyMLPClassifier}
"""The networks for points in the plane."""


def options(group):
    return sorted(path.stem for path in (CONF / group).glob("*.yaml"))


def every(group):
    return pytest.mark.parametrize(group, options(group))


# Every option


def test_the_config_folder_is_absolute():
    assert CONF.is_absolute()
    assert (CONF / "train.yaml").is_file()
    assert (CONF / "sample.yaml").is_file()


OWN = {"image_folder": r"root is missing: add data\.root=PATH", "npz": r"path is missing: add data\.path=FILE"}
"""The datasets without a default folder or file, and the error that asks for one."""


@pytest.mark.parametrize("data", sorted(set(options("data")) - OWN.keys()))
def test_every_dataset_is_built_without_touching_a_file(data, compose, tmp_path, monkeypatch):
    monkeypatch.setenv("GUIDED_DIFFUSION_DATA", str(tmp_path))
    built = build(compose(f"data={data}").data)
    assert isinstance(built, LabelledDataModule)
    assert (built.kind, built.shape[0], built.num_classes) in {
        ("images", 1, 10),
        ("images", 3, 10),
        ("points", 2, 3),
    }
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("data", OWN)
def test_a_dataset_of_ones_own_is_built_when_it_is_named(data, compose, tmp_path):
    with pytest.raises(ValueError, match=OWN[data]):
        build(compose(f"data={data}").data)
    (tmp_path / "cat").mkdir()
    Image.new("L", (9, 9)).save(tmp_path / "cat" / "1.png")
    np.savez(tmp_path / "mine.npz", images=np.zeros((1, 3, 32, 32), np.uint8), labels=[0])
    override = {"image_folder": f"data.root={tmp_path}", "npz": f"data.path={tmp_path / 'mine.npz'}"}[data]
    built = build(compose(f"data={data}", override).data)
    assert isinstance(built, LabelledDataModule)
    assert (built.shape, built.num_classes) == ((3, 32, 32), 1)


@every("network")
def test_every_network_is_built(network, compose):
    node = compose(f"network={network}", "network.width=8").network
    if network in POINTS:
        assert isinstance(build_network(node, (2,), 3), POINTS[network])
    elif network == "classifier_fast":  # for images of any size
        assert isinstance(build_network(node, (3, 9, 12), 10), NoisyCNNClassifier)
    else:
        size = int(re.search(r"\d+", network)[0].replace("10", "32"))
        kind = FastUNet if network.endswith("fast") else NoisyClassifier if network.startswith("classifier") else UNet
        assert isinstance(build_network(node, (1, size, size), 10), kind)


@pytest.mark.parametrize(
    ("network", "multiple"),
    [(f"{kind}_{size}", n) for kind in ("unet", "classifier") for size, n in ((8, 2), (28, 4), ("cifar10", 8))]
    + [("unet_28_small", 4), ("unet_8_fast", 2), ("unet_28_fast", 4), ("unet_32_fast", 8)],
)
def test_every_network_takes_the_images_that_the_docs_say(network, multiple, compose):
    node = compose(f"network={network}", "network.width=8").network
    any_size = OmegaConf.merge(node, {"patch_size": 1, "multipliers": [1]})
    if not network.endswith("fast"):
        any_size.attention_levels = []
    with torch.device("meta"):
        build_network(node, (2, multiple, 3 * multiple), 10)
        build_network(any_size, (2, 9, 1), 10)
        with pytest.raises(ValueError, match=f"need a multiple of {multiple}: take image_size="):
            build_network(node, (2, 2 * multiple, multiple // 2), 10)


@pytest.mark.parametrize(
    ("network", "shape", "message"),
    [
        ("mlp", (1, 8, 8), r"network: guided_diffusion\.networks\.MLP is not for images: .*'channels'"),
        ("unet_8", (2,), r"network: guided_diffusion\.networks\.UNet is not for points: .*'dimensions'"),
    ],
)
def test_a_network_of_another_kind_of_data_is_refused(network, shape, message, compose):
    with pytest.raises(ValueError, match=message):
        build_network(compose(f"network={network}").network, shape, 3)


@every("schedule")
def test_every_schedule_is_built(schedule, compose):
    assert isinstance(build(compose(f"schedule={schedule}").schedule), Schedule)


@every("weighting")
def test_every_weighting_is_built_and_reaches_the_module(weighting, compose):
    config = compose(f"weighting={weighting}")
    assert callable(build(config.weighting))
    assert build(config.module.weighting) == build(config.weighting)


@pytest.mark.slow
@every("guidance")
@pytest.mark.parametrize("program", ["train", "sample"])
def test_every_guidance_has_a_scale_that_can_be_set(guidance, program, compose):
    built = build(compose(f"guidance={guidance}", "guidance.scale=1.5", program=program).recipe)
    assert isinstance(built.guidance, Guidance)
    assert built.guidance.scale == 1.5


@every("threshold")
def test_every_threshold_is_built(threshold, compose):
    assert isinstance(build(compose(f"threshold={threshold}").threshold), Wrapper)


@every("sampler")
@pytest.mark.parametrize("program", [pytest.param("train", marks=pytest.mark.slow), "sample"])
def test_every_sampler_is_built_with_its_steps(sampler, program, compose):
    recipe = build(compose(f"sampler={sampler}", "sampler.steps=7", program=program).recipe)
    assert isinstance(recipe, Recipe)
    assert isinstance(recipe.sampler, Sampler)
    assert recipe.sampler.steps == 7
    assert len(recipe.sampler.times(build(compose().schedule), 7)) == 8


@pytest.mark.parametrize(
    ("sampler", "times"),
    [*((one, "shifted") for one in options("sampler")), *(("ddim", one) for one in options("sampler/times"))],
)
def test_samplers_and_grids_of_times_are_chosen_apart(sampler, times, compose):
    built = build(compose(f"sampler={sampler}", f"sampler/times={times}", program="sample").sampler)
    function = getattr(samplers, f"{times}_times")
    assert built.times.func is function
    defaults = {name: one.default for name, one in inspect.signature(function).parameters.items()}
    assert built.times.keywords == {name: defaults[name] for name in defaults if name not in ("schedule", "steps")}


def test_a_grid_of_times_may_be_named_by_its_function(compose):
    """As in the commands of earlier versions."""
    named = compose("sampler.times._target_=guided_diffusion.samplers.karras_times", "+sampler.times.rho=5")
    assert build(named.sampler).times.keywords == {"rho": 5}


@every("judge")
def test_every_judge_is_built(judge, compose):
    assert isinstance(build(compose(f"judge={judge}").judge), JudgeSource | JudgePair)


@every("strategy")
def test_every_strategy_is_built(strategy, compose):
    node = compose(f"strategy={strategy}").trainer.strategy
    if strategy == "deepspeed" and importlib.util.find_spec("deepspeed") is None:
        pytest.skip("DeepSpeed is not installed; tests/training/test_trainer.py looks at what is said then")
    assert node == "auto" or isinstance(build(node), Strategy)


@every("callbacks")
def test_every_set_of_callbacks_is_built(callbacks, compose, tmp_path):
    """All but those for divided weights average them; those and the minimal set don't sample."""
    nodes = compose(f"callbacks={callbacks}", output_dir=tmp_path).callbacks.values()
    built = [build(node) for node in nodes if node]
    assert any(isinstance(callback, EMA) for callback in built) == (callbacks != "sharded")
    samples = any(isinstance(callback, SamplingCallback) for callback in built)
    assert samples == (callbacks not in ("minimal", "sharded"))


@every("logger")
def test_every_logger_option_includes_the_csv_logger(logger, compose):
    targets = {name: node._target_ for name, node in compose(f"logger={logger}").logger.items()}
    assert targets["csv"] == "guided_diffusion.training.loggers.csv.CSVLogger"
    assert logger in targets


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [name for name in options("experiment") if "patterns" not in name])
def test_every_experiment_with_images_trains(experiment, compose, tiny, tmp_path):
    """Its own network, narrow, and its own precision, on random images of the size of its own.

    A diffusion model samples and is judged; a classifier has nothing to sample from.
    """
    data = get_class(compose(f"+experiment={experiment}").data._target_)
    size = [f"data.channels={data.channels}", f"data.image_size={data.image_size}", "data.batch_size=4"]
    short = ["trainer.max_steps=2", "trainer.val_check_interval=2", "data.num_train=40", "data.validation_size=4"]
    own = ("network=", "module/optimizer=", "trainer.precision=")
    small = [override for override in tiny if not override.startswith(own)]
    config = compose(f"+experiment={experiment}", *small, *size, *short, output_dir=tmp_path)
    assert config.name == experiment
    train(config)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {"checkpoints/last.ckpt", "checkpoints/best.ckpt"} <= files
    classifies = experiment.startswith("classifier")
    assert ({"samples/step_000002.png", "accuracy_by_scale.csv"} <= files) != classifies
    assert ("accuracy_by_noise.csv" in files) == classifies


@pytest.mark.slow
@pytest.mark.parametrize("experiment", [name for name in options("experiment") if "patterns" in name])
def test_every_experiment_with_points_trains(experiment, compose, tiny_points, tmp_path):
    config = compose(f"+experiment={experiment}", *tiny_points, output_dir=tmp_path)
    assert config.name == experiment
    train(config)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")}
    assert {"checkpoints/last.ckpt", "checkpoints/best.ckpt"} <= files
    classifies = experiment.startswith("classifier")
    assert ({"samples/step_000004.png", "distance_by_scale.csv"} <= files) != classifies
    assert ("accuracy_by_noise.csv" in files) == classifies


def test_the_default_is_the_digits_experiment(compose):
    default, experiment = (
        OmegaConf.to_container(compose(*override, output_dir="here"), resolve=True)
        for override in ([], ["+experiment=cfg_digits"])
    )
    assert default == experiment


# A number lives in one place


def test_a_number_is_set_in_one_place(compose):
    config = compose(
        "trainer.max_steps=77",
        "module.optimizer.lr=0.5",
        "module.optimizer.adamw_lr=0.25",
        "label_dropout=0.3",
        "seed=9",
        "scales=[4,5]",
        "weighting=min_snr",
        "weighting.gamma=2",
        "guidance.scale=7",
        "sampler.steps=6",
        "judge.steps=8",
        "output_dir=here",
    )
    callbacks = config.callbacks
    assert config.module.lr_scheduler.total_steps == 77
    assert config.module.lr_scheduler.max_lr == [0.5, 0.25]
    assert config.module.label_dropout == 0.3
    assert {config.module.seed, config.data.seed, callbacks.sample_grid.seed, callbacks.accuracy.seed} == {9}
    assert callbacks.sample_grid.scales == callbacks.accuracy.scales == [4, 5]
    assert build(config.module.weighting) == MinSNR(2)
    for recipe in (config.recipe, callbacks.sample_grid.recipe, callbacks.accuracy.recipe):
        assert (recipe.guidance.scale, recipe.sampler.steps) == (7, 6)
    assert callbacks.accuracy.judge.steps == 8
    assert callbacks.last.dirpath == callbacks.best.dirpath == "here/checkpoints"
    assert {callbacks.sample_grid.output_dir, callbacks.accuracy.output_dir, config.trainer.default_root_dir} == {
        "here"
    }
    assert config.logger.csv.save_dir == "here"


def test_the_environment_names_the_folder_of_the_data(compose, monkeypatch):
    monkeypatch.setenv("GUIDED_DIFFUSION_DATA", "/there")
    assert compose("data=mnist").data.root == "/there"
    monkeypatch.delenv("GUIDED_DIFFUSION_DATA")
    assert compose("data=mnist").data.root == "data"


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16-mixed"), (False, "32-true")])
def test_half_precision_is_used_where_the_hardware_has_it(native, precision, compose, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: native)
    assert compose("seed=123", output_dir="here").trainer.precision == precision


@pytest.mark.parametrize("program", ["train", "sample"])
def test_every_run_has_a_folder_of_its_own(program, compose):
    first, second = compose(program=program), compose("seed=1", program=program)
    assert first.output_dir != second.output_dir
    assert first.output_dir == first.output_dir


# Keys and values that are wrong


@pytest.mark.parametrize(
    "override",
    [
        "lable_dropout=0.1",
        "guidance.scael=3",
        pytest.param("data.batchsize=3", marks=pytest.mark.slow),
        pytest.param("network.widht=8", marks=pytest.mark.slow),
        pytest.param("trainer.max_step=3", marks=pytest.mark.slow),
        pytest.param("callbacks.ema.deacy=0.9", marks=pytest.mark.slow),
        "module.optimizer.learning_rate=1",
    ],
)
def test_an_unknown_key_on_the_command_line_is_named(override, compose):
    with pytest.raises(ConfigCompositionException, match=f"Could not override '{override.split('=')[0]}'"):
        compose(override)


@pytest.fixture
def with_experiment(compose, tiny, tmp_path):
    """Compose the tiny config with an experiment of this content."""

    def composed(content):
        (tmp_path / "experiment").mkdir()
        (tmp_path / "experiment" / "own.yaml").write_text(f"# @package _global_\n{content}\n")
        return compose(
            f"hydra.searchpath=[file://{tmp_path}]", "+experiment=own", *tiny, output_dir=tmp_path / "output"
        )

    return composed


def test_an_experiment_may_lie_in_a_users_folder(with_experiment):
    assert with_experiment("label_dropout: 0.25").module.label_dropout == 0.25


def test_an_unknown_top_level_key_in_an_experiment_is_named(with_experiment):
    with pytest.raises(ConfigCompositionException) as error:
        with_experiment("lable_dropout: 0.2")
    assert "lable_dropout" in f"{error.value} {error.value.__cause__}"


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ("network: {widht: 8}", "widht"),
        pytest.param("data: {batchsize: 8}", "batchsize", marks=pytest.mark.slow),
        ("trainer: {max_step: 8}", "max_step"),
        pytest.param("schedule: {log_snr_mim: -10}", "log_snr_mim", marks=pytest.mark.slow),
        pytest.param("guidance: {scael: 3}", "scael", marks=pytest.mark.slow),
        pytest.param("sampler: {stesp: 3}", "stesp", marks=pytest.mark.slow),
        ("sampler: {method: {etaa: 1}}", "etaa"),
        pytest.param("module: {parametrization: v}", "parametrization", marks=pytest.mark.slow),
        ("module: {lr_scheduler: {pct_strat: 0.1}}", "pct_strat"),
        pytest.param("judge: {stpes: 3}", "stpes", marks=pytest.mark.slow),
        pytest.param("callbacks: {ema: {deacy: 0.9}}", "deacy", marks=pytest.mark.slow),
        ("callbacks: {acuracy: {num_samples: 8}}", "acuracy"),
        pytest.param("logger: {csv: {nmae: x}}", "nmae", marks=pytest.mark.slow),
    ],
)
def test_an_unknown_key_in_an_experiment_is_named_before_anything_is_written(content, key, with_experiment, tmp_path):
    config = with_experiment(content)
    with pytest.raises(ValueError, match=key):
        train(config)
    assert not (tmp_path / "output").exists()


@pytest.mark.parametrize(
    "override",
    ["label_dropout=much", "scales=3", "scales=[a]", "seed=x", "network=unet_9", "+experiment=cfg_nothing"],
)
def test_a_value_of_the_wrong_kind_is_refused(override, compose):
    with pytest.raises(Exception, match=re.split("[+=]", override.removeprefix("+"))[0]):
        compose(override)
