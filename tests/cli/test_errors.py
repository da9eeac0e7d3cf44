"""A wrong config ends in one line that names the key, and leaves no files."""

import random
import re
from time import perf_counter

import pytest
from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from guided_diffusion.cli.errors import check_flags, did_you_mean, explain
from guided_diffusion.cli.evaluate import evaluate
from guided_diffusion.cli.program import USER_ERRORS
from guided_diffusion.cli.sample import sample
from guided_diffusion.cli.train import train

SECONDS = 5
"""The time within which a wrong config must be refused on an idle machine."""

# Keys by the kind of values that they refuse.

POSITIVE = {
    "train": [
        *("network.width", "network.blocks", "network.head_channels", "network.patch_size", "data.batch_size"),
        *("data.channels", "data.image_size", "data.num_classes", "data.num_train", "data.num_test", "sampler.steps"),
        *("trainer.max_steps", "trainer.val_check_interval", "trainer.log_every_n_steps", "recipe.batch_size"),
        *("trainer.gradient_clip_val", "judge.steps", "judge.batch_size", "judge.width", "judge.learning_rate"),
        *("callbacks.accuracy.num_samples", "callbacks.last.every_n_steps", "callbacks.progress.every_n_steps"),
        *("callbacks.throughput.every_n_steps", "callbacks.sample_grid.max_classes", "callbacks.finite.every_n_steps"),
        *("module.optimizer.lr", "threshold.bound"),
    ],
    "sample": ["num_samples", "sampler.steps", "recipe.batch_size", "threshold.bound"],
    "evaluate": ["num_samples", "sampler.steps", "recipe.batch_size", "threshold.bound", "judge.steps", "judge.width"],
}
FRACTIONS = {
    "train": ["label_dropout", "network.dropout", "callbacks.ema.decay", "module.lr_scheduler.pct_start"],
    "sample": ["sampler.method.eta"],
    "evaluate": ["sampler.method.eta"],
}
NUMBERS = {
    "train": [*POSITIVE["train"], *FRACTIONS["train"], "seed", "guidance.scale", "schedule.log_snr_min", "data.seed"],
    "sample": [*POSITIVE["sample"], *FRACTIONS["sample"], "seed", "guidance.scale"],
    "evaluate": [*POSITIVE["evaluate"], *FRACTIONS["evaluate"], "seed", "guidance.scale"],
}
OPTIONS = {
    "train": ["network=unet_8", "data=digits", "guidance=cfg", "sampler=ddim", "weighting=min_snr", "judge=cnn"],
    "sample": ["guidance=cfg", "sampler=ddim", "threshold=clip"],
    "evaluate": ["guidance=cfg", "sampler=heun", "threshold=dynamic", "judge=lenet", "logger=csv"],
}
QUOTED = ("num_samples='3'", "seed='3'")
"""Overrides that are right: the schema reads the number in the text."""
REFUSED = [
    ("evaluate", "smapler=ddim", "did you mean sampler?"),
    ("train", "seed=-1", "seed"),
    ("train", "output_dir=/proc/x", "output_dir: no folder can be made at /proc/x: No such file or directory; choose"),
    ("train", "name=${nope}", "nope"),
    ("train", "trainer.max_steps=1,2", "max_steps"),
    ("train", "--multirn", "--multirn"),
    ("train", "seed=[", "seed"),
    ("train", "~seeed", "seeed"),
    ("train", "threshold=dynamic threshold.quantile=2", "quantile"),
    ("train", "-m lable_dropout=0.1,0.2", "lable_dropout"),
    (
        "train",
        "network=classifier_8",
        "error: module=diffusion needs a network that takes (x_t, log_snr, y), and Noisy",
    ),
    (
        "train",
        "output_dir=a,b",
        """for a sweep add -m, for a list write output_dir=[a,b], and for a text with a comma 'o""",
    ),
    ("train", "scales=[a]", "scales: must be a number, got 'a'"),
    ("train", "-m seed=0,1 output_dir=a hydra.sweep.dir=b", "output_dir and hydra.sweep.dir both name the folder"),
    ("sample", "checkpoint=RUN/checkpoints/lst.ckpt", "; did you mean"),
    ("sample", "trusted=own", "trusted: must be a list, in brackets: [A] or [A,B]"),
    ("train", "experiment=cfg_digits", "there is no experiment to set; did you mean +experiment?"),
    ("train", "guidance.sigma_lo=1", "there is no guidance.sigma_lo to set; it goes with guidance=classifier"),
    ("sample", "sampler.times.shift=2", "there is no sampler.times.shift to set; it goes with sampler/times=shifted"),
    ("sample", "sampler/times=karas", "sampler/times=karas: there is no such option; did you mean karras?"),
    ("train", "data=mnist data.root=/proc/nowhere", "GUIDED_DIFFUSION_DATA"),
    ("sample", "data=mnist", "there is no data to set"),
    ("sample", "output_dir=RUN", "is the folder of a training, to be kept: choose another"),
    ("sample", "+sampler.method.etaa=1", "unexpected keyword argument 'etaa'"),
    ("evaluate", "scales=2", "scales: must be a list, in brackets"),
    ("evaluate", "guidance=classifier", "guidance.classifier is missing"),
]
"""Program, arguments, and what the line must say, where Hydra composes the config or the program prints the line."""
MORE_REFUSED = [
    ("train", "callbacks.guide=x", "guide"),
    ("train", "trainer.precision=8", "precision"),
    ("train", "+foo=1", "foo"),
    ("train", "network.width=28", "width"),
    ("train", "guidance=classifier", "classifier"),
    ("train", "seed", "seed"),
    ("train", "+seed=3", "seed"),
    ("train", "hydra.mode=FAST", "mode"),
    ("train", "schedule=linear_beta schedule.beta_start=0.5", "beta_start"),
    ("train", "schedule=linear_beta schedule.num_timesteps=0", "num_timesteps"),
    ("train", "weighting=min_snr weighting.gamma=0", "gamma"),
    ("train", "-m seed=0,x", "seed"),
    ("train", "module=classifier", "error: module=classifier needs a network that takes (x_t, log_snr) and returns"),
    ("train", "output_dir=a=b", """quote it for Hydra and for the shell: 'output_dir="a=b"'"""),
    ("train", "output_dir=Größe", """quote it for Hydra and for the shell: 'output_dir="Größe"'"""),
    ("train", "output_dir=two words", "if it is a part of output_dir, quote it: 'output_dir=two words'"),
    ("train", "output_dir=[a]", "output_dir: must be a text; brackets and braces in it need quotes"),
    ("train", 'output_dir="a\\${b}"', "has ${ in its name, which Hydra can't use: rename it"),
    ("train", "data.nonexist=3", "there is no data.nonexist to set; data has balance, batch_size, channels, flip"),
    ("train", "label_dropout=2", "error: label_dropout must be in [0, 1], got 2"),
    ("train", "seed=null", "seed: must have a value, got null"),
    ("train", "data=null", "data=null: data must be one of cifar10, "),
    (
        "train",
        "seed=1 logger=null",
        "logger=null: logger must be one of csv, tensorboard, wandb; ~logger leaves it out",
    ),
    ("sample", "threshold=null", "threshold=null: threshold must be one of clip, dynamic, none"),
    ("evaluate", "sampler=3", "sampler=3: sampler must be one of ddim, "),
    (
        "train",
        "trainer.precision=bf",
        "trainer.precision must be 32-true, bf16-mixed, 16-mixed or 64-true, got bf",
    ),
    ("train", "-m output_dir=a,b", "output_dir: the jobs of a sweep have folders 0, 1, ... in one output_dir"),
    ("train", "-m seed=0,1 output_dir=", "output_dir is empty"),
    ("sample", "checkpoint=README.md", "there is no checkpoint at"),
    ("sample", "checkpoint=RUN/config.yaml", "is not a checkpoint: name the checkpoints/last.ckpt of a training"),
    ("train", "resume=", "resume is empty"),
    ("train", "output_dir=", "output_dir is empty"),
    ("train", "trainer.enable_checkpointing=false", "to set; trainer has accelerator, "),
    ("train", "guidance=interval guidance.classifier=x", "it goes with guidance=adam_classifier or guidance="),
    ("sample", "sampler/tmes=karras", "there is no sampler/tmes to set; did you mean sampler/times?"),
    ("train", "data.batch_size=500", "lower data.batch_size or data.validation_size"),
    ("train", "+trainer.max_step=3", "max_step"),
    ("sample", "labels=[10]", "labels"),
    ("sample", "labels=[x]", "labels"),
    ("sample", "guidance=classifier", "classifier"),
    ("sample", "animate=2.5", "animate"),
    ("sample", "output_dir=/proc/x", "output_dir"),
    ("sample", "+foo=1", "foo"),
    ("sample", "+sampler.times.rho=1", "rho"),
    ("sample", "guidance=classifier guidance.base=both", "classifier"),
    ("sample", "scales=[1,2]", "did you mean guidance.scale?"),
    ("sample", "output_dir=", "output_dir is empty"),
    ("sample", "guidance.scael=3", "did you mean guidance.scale?"),
    ("evaluate", "scales=[x]", "scales"),
    ("evaluate", "trainer.devices=0", "devices"),
    ("evaluate", "output_dir=/proc/x", "output_dir"),
    ("evaluate", "+foo=1", "foo"),
    ("evaluate", "experiment=cfg_digits", "there is no experiment to set"),
    ("evaluate", "dta=mnist", "there is no dta to set"),
    ("evaluate", "num_samples=0", "num_samples must be at least 1, got 0"),
]
"""The same for more cases of these kinds, which are slow."""
REFUSED_VALUES = [
    ("train", "scales=[]", "scales must hold at least one number"),
    ("train", "scales=[1,nan]", "scales"),
    ("train", "scales=[inf]", "scales"),
    ("train", "seed=4294967296", "seed"),
    ("train", "trainer.accelerator=tpus", "tpus"),
    ("train", "trainer.devices=0", "devices"),
    ("train", "network.multipliers=[]", "multipliers"),
    ("train", "network.multipliers=[1,0]", "multipliers"),
    ("train", "network.multipliers=[1,2,2,2,2]", "multipliers"),
    ("train", "network.attention_levels=[2]", "attention_levels"),
    ("train", "network.combine=mean", "combine"),
    ("train", "judge.width=28", "width"),
    ("train", "data.validation_size=250", "validation_size"),
    ("train", "schedule.log_snr_min=3", "log_snr_min"),
    ("train", "guidance.scale=nan", "scale must be finite, got nan"),
    ("train", "module.parameterization=w", "parameterization must be one of eps, x0, v, got 'w'"),
    ("train", "label_dropout=0", "label_dropout"),
    ("train", "label_dropout=1", "label_dropout"),
    ("train", "judge.architecture=vit", "architecture"),
    ("train", "network.width=40 network.head_channels=13", "head_channels"),
    ("train", "trainer.strategy=fast", "strategy"),
    ("train", "data.image_size=28 network.multipliers=[1,2,2,2]", "multipliers"),
    ("train", "module.optimizer.betas=[2,3]", "beta"),
    ("train", "label_dropout=1.5", "label_dropout must be in [0, 1], got 1.5"),
    ("train", "sampler.steps=0", "steps must be at least 1, got 0"),
    ("train", "recipe.batch_size=0", "batch_size must be at least 1, got 0"),
    ("train", "callbacks.ema.decay=1", "decay must be in [0, 1), got 1"),
    ("train", "network.blocks=1.5", "network.blocks must be a whole number, got 1.5"),
    ("train", "guidance.scale=abc", "guidance.scale must be a number"),
    ("train", "guidance.scale=null", "guidance"),
    ("sample", "labels=[-1]", "got [-1]"),
    ("sample", "labels=[]", "got none"),
    ("sample", "trainer.devices=0", "devices"),
    ("sample", "trainer.accelerator=abacus", "abacus"),
    ("sample", "seed=-1", "seed"),
    ("sample", "checkpoint=nowhere", "there is no checkpoint at "),
    ("sample", "guidance.scale=inf", "scale must be finite, got inf"),
    ("sample", "checkpoint=", "checkpoint is missing"),
    ("sample", "labels=[12]", "labels must be among 0 (class 0), 1 (class 1)"),
    ("sample", "num_samples=0", "num_samples must be at least 1, got 0"),
    ("sample", "sampler.steps=0", "steps must be at least 1, got 0"),
    ("sample", "sampler.times=karras", "got 'karras'; an option is chosen with a slash: sampler/times=karras"),
    ("sample", "recipe.batch_size=0", "batch_size must be at least 1, got 0"),
    ("sample", "threshold.bound=-1", "bound must be positive, got -1"),
    ("sample", "checkpoint=null", "checkpoint is missing: add checkpoint=PATH"),
    ("evaluate", "scales=[]", "scales must hold at least one number"),
    ("evaluate", "scales=[1,1]", "scales must differ"),
    ("evaluate", "scales=[nan]", "scales must be finite"),
    ("evaluate", "checkpoint=nowhere", "there is no checkpoint at "),
    ("evaluate", "trainer.precision=7", "precision"),
    ("evaluate", "seed=-1", "seed"),
    ("evaluate", "labels=balanced", "labels must be proportional or equal, got balanced"),
    ("evaluate", "judge.checkpoint=nowhere", "judge"),
    ("evaluate", "judge.checkpoint=", "judge.checkpoint is empty"),
    ("evaluate", "checkpoint=null", "checkpoint is missing: add checkpoint=PATH"),
    ("evaluate", "judge.architecture=forest", "architecture must be one of"),
]
"""The same for values that the program's function refuses, each key=value."""


def typo(word, number):
    """Another word: with one letter left out or doubled."""
    draw = random.Random(number)
    place = draw.randrange(len(word) - 1)
    before, one, two, after = word[:place], word[place], word[place + 1], word[place + 2 :]
    return next(
        wrong for wrong in (*draw.sample([before + two + after, before + one * 2 + two + after], 2), "")
        if wrong != word
    )  # fmt: skip


def wrong(program):
    """Draw arguments and the word that the error must name."""
    numbers = st.integers(0, 10**6)

    def key(kind):
        return st.sampled_from(kind[program])

    def misspelt(key, number):
        *start, last = key.split(".")
        name = typo(last, number)
        return [f"{'.'.join([*start, name])}=1"], name

    def misspelt_option(option, number):
        group, _, name = option.partition("=")
        return [f"{group}={typo(name, number)}x"], group

    def value(key, value):
        return [f"{key}={value}"], key.rpartition(".")[2]

    negative = st.integers(-(10**6), 0) | st.floats(-1e6, -0.01).map(lambda one: round(one, 2))
    outside = st.floats(1.01, 1e6) | st.floats(-1e6, -0.01) | st.just("nan")
    kind = st.sampled_from(["much", "[1,x]", "{a:1}", "true", "'3'", "[]"])
    return st.one_of(
        st.builds(value, key(POSITIVE), negative),
        st.builds(value, key(FRACTIONS), outside),
        st.builds(value, key(NUMBERS), kind).filter(lambda case: case[0][0] not in QUOTED),
        st.builds(misspelt, key(NUMBERS), numbers),
        st.builds(misspelt_option, key(OPTIONS), numbers),
    )


def common(program, tiny, checkpoint):
    """The overrides before the wrong one."""
    if program == "train":
        return tiny
    return [f"checkpoint={checkpoint}", *(["trainer.accelerator=cpu"] * (program == "evaluate"))]


@pytest.mark.slow
@pytest.mark.parametrize(("program", "examples"), [("train", 120), ("sample", 45), ("evaluate", 45)])
def test_random_wrong_overrides_are_refused_quickly_and_by_name(program, examples, refused, tiny, checkpoint):
    lines, failed, seconds = set(), [], []

    @settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(wrong(program))
    def refuse(case):
        arguments, name = case
        assume(tuple(arguments) not in lines)  # another one instead of a repeated one
        before = perf_counter()
        try:
            line = refused(program, *common(program, tiny, checkpoint), *arguments)
            assert name.lower() in line.lower(), line
            lines.add(tuple(arguments))
        except AssertionError as error:
            failed.append(f"{arguments}: {error}")
        seconds.append(perf_counter() - before)

    refuse()
    assert not failed, "\n".join(failed)
    assert len(lines) >= 0.9 * examples
    assert sorted(seconds)[-2] < SECONDS  # the first one imports


@pytest.mark.parametrize(
    ("program", "overrides", "message"),
    [*REFUSED[::2], *(pytest.param(*case, marks=pytest.mark.slow) for case in [*REFUSED[1::2], *MORE_REFUSED])],
)
def test_a_wrong_override_is_refused_on_one_line(program, overrides, message, refused, tiny, checkpoint, run_dir):
    arguments = overrides.replace("RUN", str(run_dir)).split()
    assert message.lower() in refused(program, *common(program, tiny, checkpoint), *arguments).lower()


@pytest.mark.parametrize(
    ("program", "overrides", "message"),
    [pytest.param(*case, marks=pytest.mark.slow if number % 3 else ()) for number, case in enumerate(REFUSED_VALUES)],
)
def test_a_wrong_value_is_refused_and_leaves_no_file(
    program, overrides, message, compose, tiny, checkpoint, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    config = compose(*common(program, tiny, checkpoint), program=program, output_dir=tmp_path / "output")
    for override in OverridesParser.create().parse_overrides(overrides.split()):
        OmegaConf.update(config, override.key_or_group, override.value())
    run = {
        "train": lambda: train(config),
        "sample": lambda: sample(config, overrides.split()),
        "evaluate": lambda: evaluate(config, overrides.split()),
    }
    with pytest.raises(USER_ERRORS) as error:
        run[program]()
    assert message.lower() in explain(error.value, program).lower()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        ("train", ["guidance.scael=3"], "did you mean guidance.scale?"),
        ("train", ["network=unet_9", "output_dir=a/b/c"], "did you mean unet_8?"),
        ("train", ["data=fake", "network=unet_8", "network.width=4", "output_dir=a/b/c"], "width"),
        ("sample", ["checkpoint=nowhere", "hydra.run.dir=a/b/c"], "there is no checkpoint at"),
        ("evaluate", ["num_sampels=3"], "did you mean num_samples?"),
        ("train", ["-m", "lable_dropout=0.1,0.2", "hydra.sweep.dir=a/b/c"], "did you mean label_dropout?"),
        ("train", ["--hlep"], "--help"),
    ],
)
def test_in_a_shell_an_error_is_printed_on_one_line_only(program, arguments, message, shell, tmp_path):
    done = shell("-m", f"guided_diffusion.{program}", *arguments)
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1), done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("program", ["train", "sample", "evaluate", "export"])
@pytest.mark.parametrize("argument", ["--help", "gudiance.scale=3"])
def test_help_and_a_wrong_key_import_no_heavy_package(program, argument, shell):
    heavy = ["torch", "pytorch_lightning", "torchvision", "torchmetrics", "matplotlib", "sklearn", "imageio", "wandb"]
    code = (
        f"import sys; sys.argv = ['{program}.py', '{argument}']\n"
        f"from guided_diffusion.{program} import main\n"
        f"try: main()\nexcept SystemExit: pass\n"
        f"print('imported', [name for name in {[*heavy, 'diffusers']} if name in sys.modules])"
    )
    assert shell("-c", code).stdout.splitlines()[-1] == "imported []"


def test_with_hydra_full_error_the_error_itself_is_raised(call, monkeypatch, tmp_path):
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    with pytest.raises(ConfigCompositionException, match=r"guidance\.scael"):
        call("train", "guidance.scael=3")
    assert list(tmp_path.iterdir()) == []


# Suggestions


@pytest.mark.parametrize(
    ("word", "options", "suggestion"),
    [
        ("guidance.scael", ["guidance.scale", "guidance.base", "scales"], "guidance.scale"),
        ("scales", ["guidance.scale", "sampler", "labels"], "guidance.scale"),
        ("lable_dropout", ["module.label_dropout", "label_dropout"], "label_dropout"),
        ("data.lable_dropout", ["label_dropout", "data.root"], "label_dropout"),
        ("experiment", ["+experiment", "trainer"], "+experiment"),
    ],
)
def test_the_nearest_key_is_suggested(word, options, suggestion):
    assert did_you_mean(word, options) == f"; did you mean {suggestion}?"


def test_nothing_is_suggested_if_nothing_is_near():
    assert did_you_mean("zzz", ["seed", "guidance.scale"]) == ""


# Flags


@pytest.mark.parametrize("action", get_args_parser()._actions, ids=lambda action: action.dest)
def test_every_flag_of_hydra_is_accepted(action):
    value = [] if action.nargs == 0 else [action.choices[0] if action.choices else "value"]
    for flag in action.option_strings:
        check_flags([flag, *value])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--hlep"], "unrecognized arguments: --hlep; did you mean --help?"),
        (["--cfg", "jbo"], "invalid choice: 'jbo'"),
        (["--config-name"], "expected one argument"),
    ],
)
def test_wrong_flags_are_refused(arguments, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_flags(arguments)
