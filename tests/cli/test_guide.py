import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from guided_diffusion.checkpoints.files import LAST, export
from guided_diffusion.checkpoints.loading import LateClassifier, load, load_classifier, optional_classifier
from guided_diffusion.cli.config import SampleConfig
from guided_diffusion.cli.guide import FOLDER, guide_of_model
from guided_diffusion.cli.restore import prepare
from guided_diffusion.cli.sample import sample
from guided_diffusion.cli.train import train
from guided_diffusion.schedules import LinearBeta
from guided_diffusion.utils.files import cache_dir

TINY_GUIDE = ("guide.steps=2", "guide.network.width=4")
AUTO = ("guidance=classifier", "guidance.base=conditional", "classifier=auto")
SAMPLED = ("num_samples=1", "labels=[1,2]", "sampler.steps=2")


@pytest.fixture
def run(run_dir, tmp_path):
    """A copy of the folder of a tiny training, in which a guide may be kept."""
    return Path(shutil.copytree(run_dir, tmp_path / "run"))


@pytest.fixture
def sampled(compose, tmp_path, capsys):
    """Sample from a checkpoint with these overrides; return the samples and what was printed."""
    count = iter(range(99))

    def called(checkpoint, *overrides):
        overrides = (f"checkpoint={checkpoint}", *overrides)
        capsys.readouterr()
        folder = sample(compose(*overrides, program="sample", output_dir=tmp_path / str(next(count))), overrides)
        with np.load(folder / "samples.npz") as arrays:
            return arrays["images"], capsys.readouterr().out

    return called


@pytest.fixture
def guide(compose, run):
    """The guide of the model in ``run``."""
    checkpoint = run / LAST
    config = compose(*AUTO, *TINY_GUIDE, program="sample")
    config.checkpoint = str(checkpoint)
    return guide_of_model(config, load(checkpoint))


def guides(run):
    return sorted((run / FOLDER).glob("*")) if (run / FOLDER).exists() else []


def test_the_first_sampling_trains_it_and_the_next_one_finds_it_beside_the_run(run, sampled, guide):
    first, printed = sampled(run / LAST, *AUTO, *TINY_GUIDE, *SAMPLED)
    assert printed.splitlines()[0] == f"training a classifier to guide: 2 steps on fake, kept in {guide.path}"
    assert guides(run) == [guide.path]
    again, printed = sampled(run / LAST, *AUTO, *TINY_GUIDE, *SAMPLED)
    assert "training" not in printed
    by_path, _ = sampled(run / LAST, *AUTO[:2], f"classifier={guide.path}", *SAMPLED)
    np.testing.assert_allclose(again, first, rtol=0, atol=1e-5)
    np.testing.assert_allclose(by_path, first, rtol=0, atol=1e-5)
    classifier = load_classifier(guide.path)
    assert (classifier.schedule, classifier.shape) == (load(run / LAST).schedule, (1, 8, 8))


def test_no_guidance_without_a_classifier_trains_one(run, sampled):
    _, printed = sampled(run / LAST, *SAMPLED)
    assert "training" not in printed
    assert guides(run) == []


def test_another_schedule_split_or_setting_makes_another_guide(guide):
    for part, changed in (
        ("guide", {"steps": 3}),
        ("guide", {"seed": 1}),
        ("guide", {"network": {"_target_": "guided_diffusion.networks.NoisyCNNClassifier", "width": 8}}),
        ("data", {"split_seed": 1}),
        ("data", {"validation_size": 1}),
        ("data", {"flip": True}),
        ("data", {"content": "other"}),
        ("schedule", {"log_snr_min": -9.0}),
    ):
        config = {**guide.config, part: guide.config[part] | changed}
        assert replace(guide, config=config).name != guide.name, changed


def test_other_shapes_and_classes_make_another_guide(guide):
    for changed in ({"shape": (1, 16, 8)}, {"class_names": ("a", "b")}):
        assert replace(guide, spec=replace(guide.spec, **changed)).name != guide.name


def test_what_a_guide_does_not_learn_makes_no_other(guide):
    data = guide.config["data"] | {"batch_size": 7, "num_workers": 3, "seed": 9}
    assert replace(guide, config={**guide.config, "data": data}).name == guide.name
    own, moved = (guide.config["data"] | {"content": "abc", "root": root} for root in ("here", "there"))
    assert replace(guide, config={**guide.config, "data": own}).name == (
        replace(guide, config={**guide.config, "data": moved}).name
    )


def test_a_file_of_another_guide_is_not_used_under_its_name(guide):
    other = replace(guide, spec=replace(guide.spec, schedule=LinearBeta()), config={**guide.config, "schedule": {}})
    data = load(guide.run / LAST).data()
    other.config["schedule"] = {"_target_": "guided_diffusion.schedules.LinearBeta"}
    other.find_or_train(lambda: data).rename(guide.path)
    assert not guide.is_trained(guide.path)
    assert load_classifier(guide.find_or_train(lambda: data)).schedule == guide.spec.schedule


def test_a_damaged_file_is_refused_with_the_mend(guide):
    guide.path.parent.mkdir()
    guide.path.write_text("damaged")
    with pytest.raises(ValueError, match=r"is not a checkpoint.*or delete .*, and the classifier is trained anew"):
        guide.check()


def test_it_is_kept_in_the_cache_if_the_run_can_not_be_written_or_there_is_none(guide, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("GUIDED_DIFFUSION_CACHE", str(tmp_path / "cache"))
    (guide.run / FOLDER).write_text("a file in place of the folder")
    cached, load_data = tmp_path / "cache" / "guides" / guide.name, load(guide.run / LAST).data
    assert guide.find_or_train(load_data) == cached
    assert f"kept in {cached}, as the model has no folder of a run that can be written" in capsys.readouterr().out
    assert replace(guide, run=None).find_or_train(load_data) == cached
    (guide.run / FOLDER).unlink()
    assert guides(guide.find_or_train(load_data).parents[1]) == [guide.path]
    assert guide.path.read_bytes() == cached.read_bytes()
    assert "training" not in capsys.readouterr().out


def test_a_model_outside_of_a_run_has_its_guide_in_the_cache(compose, checkpoint, tmp_path):
    alone = shutil.copy(checkpoint, tmp_path / "alone.ckpt")
    config = compose(*AUTO, *TINY_GUIDE, program="sample")
    config.checkpoint = str(alone)
    guide = guide_of_model(config, load(alone))
    assert guide.path == cache_dir() / "guides" / guide.name
    assert not guide.path.is_relative_to(checkpoint.parents[1])


def test_an_exported_model_in_the_folder_of_a_run_has_its_guide_there(compose, run):
    exported = run / "model.safetensors"
    export(run / LAST, exported)
    config = compose(*AUTO, *TINY_GUIDE, program="sample")
    config.checkpoint = str(exported)
    assert guide_of_model(config, load(exported)).path.parent == run / FOLDER


def test_a_run_that_goes_on_elsewhere_takes_the_guide_along(guide, tmp_path, capsys):
    load_data = load(guide.run / LAST).data
    first = guide.find_or_train(load_data)
    capsys.readouterr()
    copied = replace(guide, run=tmp_path / "longer").find_or_train(load_data, [guide.run])
    assert copied == tmp_path / "longer" / FOLDER / guide.name
    assert copied.read_bytes() == first.read_bytes()
    assert capsys.readouterr().out == ""


def test_a_training_has_it_beside_its_checkpoints_and_the_same_weights_as_without(compose, tiny, run_dir, tmp_path):
    train(compose(*tiny, *AUTO, *TINY_GUIDE, output_dir=tmp_path / "guided"))
    (path,) = guides(tmp_path / "guided")
    assert load_classifier(path).num_classes == 10
    one, other = (load(folder / LAST) for folder in (run_dir, tmp_path / "guided"))
    for first, second in zip(one.denoiser.parameters(), other.denoiser.parameters(), strict=True):
        assert torch.equal(first, second)
    assert other.config["guidance"]["classifier"]["checkpoint"] == "auto"
    assert other.config["guide"]["steps"] == 2


@pytest.mark.slow
def test_sampling_takes_the_settings_of_the_guide_from_the_training(compose, run):
    content = torch.load(run / LAST, weights_only=True)
    trained = compose(*AUTO, *TINY_GUIDE, "network@guide.network=classifier_8", "guide.network.width=8")
    for key in ("guidance", "guide"):
        content["guided_diffusion"]["config"][key] = plain_node(trained, key)
    torch.save(content, run / LAST)

    def settings(*overrides):
        overrides = (f"checkpoint={run / LAST}", *overrides)
        config = compose(*overrides, program="sample", output_dir=run.parent / "samples")
        prepare(config, overrides, SampleConfig)
        network = config.guide.network
        return config.guide.steps, network._target_.rpartition(".")[2], network.width, config.guidance.base

    assert settings() == settings("classifier=auto") == (2, "NoisyClassifier", 8, "conditional")
    assert settings("guide.steps=3") == (3, "NoisyClassifier", 8, "conditional")
    by_group = settings("network@guide.network=classifier_fast")
    assert by_group == (2, "NoisyCNNClassifier", 48, "conditional")


def plain_node(config, key):
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config[key], resolve=True)


def test_a_checkpoint_can_not_run_code_through_its_guide(compose, run, sampled):
    content = torch.load(run / LAST, weights_only=True)
    config = content["guided_diffusion"]["config"]
    config["guidance"] = plain_node(compose(*AUTO), "guidance")
    config["guide"] = {"_target_": "no_package.run", "command": "touch here"}
    torch.save(content, run / LAST)
    with pytest.raises(ValueError, match=r"wants to run no_package\.run, which is no part"):
        sampled(run / LAST, *SAMPLED)


@pytest.mark.parametrize(
    ("program", "overrides", "message"),
    [
        ("sample", ["guide.steps=3"], "guide has no effect without guidance=classifier classifier=auto"),
        pytest.param(
            "train",
            ["guide.steps=3"],
            "guide has no effect without guidance=classifier classifier=auto",
            marks=pytest.mark.slow,
        ),
        pytest.param("sample", [*AUTO, "guide.steps=0"], "steps must be at least 1, got 0", marks=pytest.mark.slow),
        ("train", [*AUTO, "guide.time_sampling.mean=20"], "guide.time_sampling: log(sigma / alpha) is at most 7.5"),
        ("train", ["{classify}", "classifier=auto"], "classifier=auto has no effect here: the classifier in training"),
    ],
)
def test_settings_that_can_not_be_are_refused(
    program, overrides, message, refused, checkpoint, tiny, classifier_overrides
):
    start = [f"checkpoint={checkpoint}"] if program == "sample" else [*tiny, "hydra.run.dir=here"]
    listed = [one for part in overrides for one in (classifier_overrides if part == "{classify}" else [part])]
    assert message in refused(program, *start, *listed)


def test_a_late_classifier_reads_its_file_at_the_first_call(guide):
    late, inputs = LateClassifier(str(guide.path)), (torch.zeros(2, 1, 8, 8), torch.full((2,), 0.5))
    with pytest.raises(FileNotFoundError):
        late(*inputs)
    path = guide.find_or_train(load(guide.run / LAST).data)
    assert torch.equal(late(*inputs), load_classifier(path)(*inputs))
    assert optional_classifier("auto") is None


def test_points_have_a_guide_of_their_own(points_run, sampled, tmp_path):
    run = Path(shutil.copytree(points_run, tmp_path / "points"))
    guided = ("guidance=classifier", "classifier=auto", "guide.steps=2", "guide.network.width=8")
    _, printed = sampled(run / LAST, *guided, "num_samples=3", "sampler.steps=2")
    assert "2 steps on patterns" in printed


@pytest.mark.slow
def test_two_programs_at_once_and_a_sweep_train_it_once(run, shell, tmp_path):
    """From the first sampling of two programs at once to an evaluation of several scales, in processes of their own."""
    import os
    import sys

    import guided_diffusion

    start = (f"checkpoint={run / LAST}", *AUTO, "guide.steps=60", *SAMPLED, "trainer.accelerator=cpu")
    environment = os.environ | {"PYTHONPATH": str(Path(guided_diffusion.__file__).parent.parent)}
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "guided_diffusion.sample", *start, f"hydra.run.dir=by_{number}"],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for number in range(2)
    ]
    printed = [program.communicate()[0] for program in programs]
    assert [program.returncode for program in programs] == [0, 0], printed
    assert sum("training a classifier to guide" in one for one in printed) == 1
    evaluate = ("-m", "guided_diffusion.evaluate", "-m", f"checkpoint={run / LAST}", *AUTO, "guide.steps=61")
    judge = ("judge.steps=2", "judge.width=8", "num_samples=3", "sampler.steps=2", "trainer.accelerator=cpu")
    swept = shell(*evaluate, *judge, "guidance.scale=1,3", "guidance.sigma_hi=1.5")
    assert swept.returncode == 0, swept.stderr
    assert swept.stdout.count("training a classifier to guide") == 1
    assert len(guides(run)) == 2
