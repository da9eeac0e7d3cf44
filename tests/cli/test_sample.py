from itertools import pairwise

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from guided_diffusion.checkpoints.loading import load
from guided_diffusion.cli.config import SampleConfig, use_recipe_of_training
from guided_diffusion.cli.restore import prepare
from guided_diffusion.cli.sample import sample
from guided_diffusion.cli.source import read_source
from guided_diffusion.evaluation.plan import sampling_fingerprint
from guided_diffusion.guidance import ClassifierFree, Clip
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler

RECORD = ["config.yaml", "environment.json", "reproduce.sh"]


@pytest.fixture
def sampled(compose, checkpoint, tmp_path):
    """Sample with these overrides into a new folder and return it."""
    count = iter(range(99))

    def folder(*overrides):
        output_dir = tmp_path / str(next(count))
        overrides = (f"checkpoint={checkpoint}", *overrides)
        return sample(compose(*overrides, program="sample", output_dir=output_dir), overrides)

    return folder


def images(folder):
    with np.load(folder / "samples.npz") as arrays:
        return torch.from_numpy(arrays["images"])


def labels(folder):
    with np.load(folder / "samples.npz") as arrays:
        return arrays["labels"].tolist()


def same(one, other):
    return torch.allclose(images(one), images(other), rtol=0, atol=1e-5)


def test_sampling_writes_a_picture_the_arrays_and_the_config(sampled):
    folder = sampled("labels=[3,7]", "num_samples=4")
    assert sorted(path.name for path in folder.iterdir()) == [*RECORD, "samples.npz", "samples.png"]
    assert images(folder).shape == (8, 1, 8, 8)
    assert images(folder).dtype == torch.float32
    assert images(folder).abs().max() <= 1
    assert labels(folder) == [3] * 4 + [7] * 4
    assert np.asarray(Image.open(folder / "samples.png")).shape[1] > 4 * 28
    assert "${" not in (folder / "config.yaml").read_text()


def test_all_classes_are_drawn_where_none_are_named(sampled):
    assert labels(sampled("num_samples=2")) == [n // 2 for n in range(20)]


def test_the_averaged_weights_are_sampled(sampled, checkpoint):
    model = load(checkpoint)
    recipe = Recipe(ClassifierFree(1.0), Clip(), Sampler(steps=2))
    expected = recipe.sample(model.denoiser, torch.tensor([3, 3]), model.shape, seed=5)
    actual = images(sampled("labels=[3]", "num_samples=2", "seed=5", "guidance.scale=1"))
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_other_weights_or_another_seed_or_scale_give_other_samples(sampled):
    first = sampled("labels=[3]", "num_samples=1")
    for override in ("weights=raw", "seed=1", "guidance.scale=8"):
        assert not same(first, sampled("labels=[3]", "num_samples=1", override))


@pytest.mark.parametrize(
    "sampler",
    [pytest.param("ddim", marks=pytest.mark.slow), "ddpm", pytest.param("sde_dpmpp_2m", marks=pytest.mark.slow)],
)
def test_a_sample_depends_on_its_index_and_not_on_the_batch_size(sampler, sampled):
    """Sample i has the noise of (seed, i), however many are drawn together."""
    common = ["labels=[3,7]", f"sampler={sampler}", "sampler.steps=3"]
    whole = sampled(*common, "num_samples=6", "recipe.batch_size=64")
    longer = sampled("labels=[3,7,1]", *common[1:], "num_samples=6", "recipe.batch_size=7")
    torch.testing.assert_close(images(longer)[:12], images(whole), rtol=0, atol=1e-5)
    more = sampled("labels=[3]", *common[1:], "num_samples=9")
    torch.testing.assert_close(images(more)[:6], images(whole)[:6], rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 3, 12])
def test_an_animation_has_a_frame_for_every_step_and_ends_with_the_samples(count, sampled):
    chosen = ",".join(str(n % 10) for n in range(count))
    folder = sampled(f"labels=[{chosen}]", "num_samples=4", "animate=true", "sampler.steps=5")
    with Image.open(folder / "animation.gif") as gif:
        assert gif.n_frames == 5
        gif.seek(4)
        last = np.asarray(gif.convert("L")).astype(int)
    video = imageio.imread(folder / "animation.mp4")
    assert len(video) == 5 + 20
    # Two rows of images of 56 pixels with lines of 2 between: x_t, which is now the sample, above the estimate of x_0.
    columns = count * min(4, max(1, 10 // count))
    assert last.shape[0] == 2 * 58 + 2
    assert last.shape[1] == columns * 58 + 2
    rows = torch.arange(4 * count).unflatten(0, (count, 4))[:, : columns // count].flatten()
    for column, pixels in enumerate((images(folder)[rows, 0] + 1) * 127.5):
        enlarged = pixels.round().repeat_interleave(7, 0).repeat_interleave(7, 1)
        shown = torch.from_numpy(last[2:58, 2 + 58 * column : 58 * (column + 1)])
        assert abs(shown - enlarged).max() <= 4


@pytest.fixture
def used(compose, checkpoint, tmp_path):
    """Return the config that sampling with these overrides uses."""

    def config(*overrides):
        overrides = (f"checkpoint={checkpoint}", *overrides)
        composed = compose(*overrides, program="sample", output_dir=tmp_path)
        prepare(composed, overrides, SampleConfig)
        return composed

    return config


def test_the_recipe_of_the_training_is_the_default(used, compose):
    assert used().sampler.steps == 2  # as in the training, and not today's 25
    assert compose(program="sample").sampler.steps == 25
    assert used().recipe.sampler == used().sampler


def test_an_override_changes_its_key_only(used):
    changed, plain = used("guidance.scale=5", "sampler.method.eta=0.5"), used()
    assert (changed.recipe.guidance.scale, changed.recipe.sampler.method.eta) == (5, 0.5)
    changed.guidance.scale, changed.sampler.method.eta = plain.guidance.scale, plain.sampler.method.eta
    for group in ("guidance", "threshold", "sampler"):
        assert changed[group] == plain[group]


def test_an_option_of_a_group_replaces_that_of_the_training(used):
    recipe = used("sampler=heun", "threshold=none").recipe
    assert recipe.sampler.method._target_ == "guided_diffusion.samplers.heun"
    assert recipe.sampler.steps == 13  # of the option, and not the training's 2
    assert recipe.threshold._target_ == "guided_diffusion.guidance.NoThreshold"
    assert recipe.guidance.scale == 2


def test_an_option_and_a_key_in_it_can_be_overridden_together(used):
    recipe = used("sampler=heun", "sampler.steps=3").recipe
    assert recipe.sampler.method._target_ == "guided_diffusion.samplers.heun"
    assert recipe.sampler.steps == 3


def test_a_grid_of_times_replaces_that_of_the_training_and_keeps_its_sampler(used):
    sampler, trained = used("sampler.times.shift=2", "sampler/times=shifted").recipe.sampler, used().sampler
    assert sampler.times == {"_target_": "guided_diffusion.samplers.shifted_times", "_partial_": True, "shift": 2}
    assert (sampler.method, sampler.steps) == (trained.method, trained.steps)
    assert used("sampler=heun", "sampler/times=karras").sampler.times.rho == 7


def test_nothing_of_the_trained_grid_of_times_remains_in_another(compose):
    config, own = compose("sampler/times=karras", program="sample"), ["sampler/times=karras"]
    trained = OmegaConf.to_container(compose("sampler/times=shifted"))
    use_recipe_of_training(config, trained, own)
    assert config.sampler.times == compose("sampler/times=karras").sampler.times
    use_recipe_of_training(config, trained, [])
    assert config.sampler.times.shift == 3


@pytest.mark.slow
def test_colour_images_keep_their_channels(fit, compose, tmp_path):
    from guided_diffusion.training.callbacks import LastCheckpoint

    fit("data.channels=3", callbacks=[LastCheckpoint(str(tmp_path))])
    overrides = [f"checkpoint={tmp_path / 'last.ckpt'}", "num_samples=2", "animate=true"]
    folder = sample(compose(*overrides, program="sample", output_dir=tmp_path / "out"), overrides)
    assert images(folder).shape == (20, 3, 8, 8)
    assert len(imageio.imread(folder / "animation.mp4")) == 2 + 20


# Several scales


def arrays(folder, name="samples"):
    with np.load(folder / f"{name}.npz") as found:
        return {key: torch.from_numpy(found[key]) for key in found}


def test_several_scales_are_drawn_from_the_same_labels_and_noise(sampled):
    steps = ["sampler=ddpm", "sampler.steps=4"]
    folder = sampled("labels=[3,7]", "num_samples=2", "guidance.scale=[1,2,4]", "compare=true", *steps)
    found = arrays(folder)
    assert found["images"].shape == (3, 4, 1, 8, 8)
    assert (found["scales"].tolist(), found["labels"].tolist()) == ([1, 2, 4], [3, 3, 7, 7])
    alone = sampled("labels=[3,7]", "num_samples=2", "guidance.scale=4", *steps)
    torch.testing.assert_close(found["images"][2], images(alone), rtol=0, atol=1e-5)
    torch.testing.assert_close(arrays(folder, "unguided")["images"], found["images"][0], rtol=0, atol=1e-5)
    assert OmegaConf.load(folder / "config.yaml").guidance.scale == [1, 2, 4]
    width, height = Image.open(folder / "samples.png").size
    assert 1 < width / height < 2  # three scales below each other, four samples side by side, and their names


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["guidance.scale=[]"], "guidance.scale must hold at least one number"),
        pytest.param(
            ["guidance.scale=[1,1.0]"],
            "guidance.scale must hold different numbers, got [1, 1.0]",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["guidance.scale=[1,high]"],
            "guidance.scale must be a number or a list of numbers, got [1, 'high']",
            marks=pytest.mark.slow,
        ),
        pytest.param(["guidance.scale=[1,.inf]"], "guidance.scale must be", marks=pytest.mark.slow),
        pytest.param(
            ["guidance.scale=[1,2]", "animate=true"],
            "animate=true takes one guidance.scale, got [1, 2]",
            marks=pytest.mark.slow,
        ),
        (["labels=[class 3,cat]"], "labels must be among 0 (class 0), "),
        pytest.param(["labels=3"], "labels: must be a list, in brackets", marks=pytest.mark.slow),
        (["strength=0.5"], "strength needs images to start from: add from=PATH"),
        pytest.param(
            ["from=nowhere.png", "strength=0.5"],
            "from: there is no file or folder at nowhere.png",
            marks=pytest.mark.slow,
        ),
        (["from=nowhere.png", "invert=true", "sampler=ddpm"], "ddpm adds noise in each step"),
    ],
)
def test_wrong_settings_end_in_one_line(overrides, message, refused, checkpoint):
    assert message in refused("sample", f"checkpoint={checkpoint}", "hydra.run.dir=here", *overrides)


def test_every_scale_of_a_list_is_checked_against_the_label_dropout(sampled, checkpoint, tmp_path):
    saved = torch.load(checkpoint, weights_only=True)
    saved["guided_diffusion"]["config"]["module"]["label_dropout"] = 0.0
    torch.save(saved, tmp_path / "untaught.ckpt")
    with pytest.raises(ValueError, match=r"guidance.scale: at 2, 4 samples need predictions without a label"):
        sampled(f"checkpoint={tmp_path / 'untaught.ckpt'}", "num_samples=1", "guidance.scale=[1,2,4]")


def test_labels_may_be_names_and_repeat_in_any_order(sampled):
    folder = sampled("labels=[class 7,3,class 7,3]", "num_samples=2")
    assert labels(folder) == [7, 7, 3, 3, 7, 7, 3, 3]
    torch.testing.assert_close(images(folder), images(sampled("labels=[7,3,7,3]", "num_samples=2")))
    assert not torch.allclose(images(folder)[:2], images(folder)[4:6])  # the same class from other noise


@pytest.mark.slow
def test_a_long_run_is_animated_in_few_frames(sampled):
    folder = sampled("labels=[3]", "num_samples=1", "animate=true", "sampler.steps=600")
    assert len(imageio.imread(folder / "animation.mp4")) == 200 + 20  # every third step, and the last one for 2 s


# From given images


@pytest.fixture
def pictures(tmp_path):
    """A folder of two pictures, grey and in colour, of different sizes."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8) * 4).save(folder / "a.png")
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(folder / "b.jpg")
    return folder


def given(folder):
    """Return the images of a folder as ``sample`` reads them."""
    return read_source(OmegaConf.create({"from": str(folder), "mask": None}), (1, 8, 8)).samples


def test_images_of_a_folder_are_changed_in_proportion_to_the_strength(sampled, pictures, capsys):
    common = [f"from={pictures}", "labels=[3,7]", "num_samples=2", "sampler=ddpm", "sampler.steps=10"]
    weak, half = (sampled(*common, f"strength={strength}") for strength in (0.05, 0.5))
    assert "strength=0.5: sampling starts at t = 0.5, for 5 steps" in capsys.readouterr().out
    assert labels(weak) == [3, 3, 7, 7]
    originals = given(pictures).repeat_interleave(2, 0)
    assert (images(weak) - originals).abs().mean() < 0.25 < (images(half) - originals).abs().mean()


@pytest.mark.slow
def test_samples_from_images_do_not_depend_on_the_batch_size(sampled, pictures):
    common = [f"from={pictures}", "labels=[3]", "num_samples=3", "strength=0.5", "sampler=ddpm", "sampler.steps=4"]
    assert same(sampled(*common), sampled(*common, "recipe.batch_size=2"))


def test_one_image_is_drawn_as_every_class_that_is_asked_for(sampled, pictures):
    assert labels(sampled(f"from={pictures / 'a.png'}", "strength=0.5", "labels=[3,7,1]")) == [3, 7, 1]
    assert labels(sampled(f"from={pictures / 'a.png'}", "strength=0.5")) == list(range(10))


def test_one_image_with_the_label_of_another_model_is_refused(sampled, tmp_path):
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 1, 8, 8), np.float32), labels=[12])
    with pytest.raises(ValueError, match=r"^from: the file's label 12 is no class of the model: add labels="):
        sampled(f"from={tmp_path / 'one.npz'}", "strength=0.5")


def test_inpainting_keeps_what_is_black_in_the_mask(sampled, pictures, tmp_path):
    np.save(tmp_path / "mask.npy", np.arange(64).reshape(8, 8) >= 32)
    common = [f"from={pictures}", f"mask={tmp_path / 'mask.npy'}", "labels=[3]", "num_samples=2"]
    found = images(sampled(*common, "sampler=dpmpp_2m", "sampler.steps=4", "guidance.scale=[1,3]"))
    originals = given(pictures).repeat_interleave(2, 0).expand(2, -1, -1, -1, -1)
    assert torch.equal(found[..., :4, :], originals[..., :4, :])
    assert not torch.allclose(found[..., 4:, :], originals[..., 4:, :], atol=0.1)
    assert not torch.allclose(found[:, 0], found[:, 1], atol=0.1)


@pytest.mark.slow
def test_an_inversion_saves_the_noise_and_prints_the_error_of_the_reconstruction(sampled, pictures, capsys):
    common = [f"from={pictures}", "invert=true", "threshold=none", "guidance.scale=1", "recipe.batch_size=1"]
    coarse, fine = (sampled(*common, "labels=[3,7]", "sampler=heun", f"sampler.steps={n}") for n in (4, 16))
    errors = [(images(folder) - given(pictures)).abs().max() for folder in (coarse, fine)]
    assert errors[1] < errors[0] / 2
    assert f"largest {errors[1]:.3g}" in capsys.readouterr().out
    noise = arrays(fine)["inverted"]
    assert noise.shape == (2, 1, 8, 8)
    assert not torch.allclose(noise, given(pictures), atol=1e-3)


def test_an_image_is_inverted_under_one_class_and_drawn_as_another(sampled, pictures, capsys):
    folder = sampled(f"from={pictures}", "invert=true", "from_labels=[3]", "labels=[7,1]", "guidance.scale=1")
    assert labels(folder) == [7, 1]
    assert "Reconstruction" not in capsys.readouterr().out
    plain = sampled(f"from={pictures}", "invert=true", "labels=[3]", "guidance.scale=1")
    assert torch.equal(arrays(folder)["inverted"], arrays(plain)["inverted"])


def test_samples_of_an_earlier_run_are_started_from_with_their_labels(sampled):
    first = sampled("labels=[7,3]", "num_samples=1")
    again = sampled(f"from={first / 'samples.npz'}", "strength=0.02")
    assert labels(again) == [7, 3]
    assert (images(again) - images(first)).abs().mean() < 0.2
    assert OmegaConf.load(again / "config.yaml")["from"] == str(first / "samples.npz")


def test_another_image_under_the_same_path_gives_other_samples(sampled, pictures, monkeypatch):
    """Samples that an interrupted run left in the cache are those of the file as it was."""
    fingerprints = []

    def record(*parts):
        fingerprints.append(sampling_fingerprint(*parts))
        return fingerprints[-1]

    monkeypatch.setattr("guided_diffusion.cli.sample.sampling_fingerprint", record)
    for _ in range(2):
        sampled(f"from={pictures / 'a.png'}", "strength=0.5", "labels=[3]")
        (pictures / "a.png").write_bytes((pictures / "b.jpg").read_bytes())
    sampled("labels=[3]", "num_samples=1", "guidance.scale=1", "compare=true")
    assert len(set(fingerprints)) == 4  # guided and unguided samples are told apart at the same scale, too


# As a program


def test_the_program_says_where_the_samples_are(call, checkpoint, tmp_path):
    called = call("sample", f"checkpoint={checkpoint}", "num_samples=1")
    assert (called.status, called.err) == (0, "")
    (folder,) = (tmp_path / "outputs" / "samples").iterdir()
    assert called.out == f"Samples are in {folder}\n"
    assert (folder / "samples.png").is_file()


@pytest.mark.slow
def test_the_program_starts_from_the_images_of_a_folder_and_says_what_it_does(shell, checkpoint, pictures, tmp_path):
    mask = np.zeros((8, 8), np.uint8)
    mask[4:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    command = ["-m", "guided_diffusion.sample", f"checkpoint={checkpoint}", "from=pictures", "labels=[class 3,7]"]
    changed = shell(*command, "strength=0.5", "sampler.steps=4", "hydra.run.dir=changed", "guidance.scale=[1,2]")
    assert changed.returncode == 0, changed.stderr
    assert "strength=0.5: sampling starts at t = 0.5, for 2 steps" in changed.stdout
    assert images(tmp_path / "changed").shape == (2, 2, 1, 8, 8)
    painted = shell(*command, "mask=mask.png", "hydra.run.dir=painted", "num_samples=1")
    assert painted.returncode == 0, painted.stderr
    assert torch.equal(images(tmp_path / "painted")[..., :4, :], given(pictures)[..., :4, :])
    inverted = shell(*command, "invert=true", "hydra.run.dir=inverted")
    assert "Reconstruction error: root mean square" in inverted.stdout
    again = shell(str(tmp_path / "painted" / "reproduce.sh"), "hydra.run.dir=again")
    assert again.returncode == 0, again.stderr
    assert torch.equal(images(tmp_path / "again"), images(tmp_path / "painted"))
    for folder in ("changed", "painted", "inverted"):
        assert OmegaConf.load(tmp_path / folder / "config.yaml")["from"] == "pictures"


@pytest.mark.slow
@pytest.mark.parametrize("base", ["unconditional", "conditional"])
@pytest.mark.parametrize("sampler", ["ddim", "ddpm", "heun", "dpmpp_2m", "sde_dpmpp_2m"])
def test_a_classifier_guides(base, sampler, sampled, classifier):
    common = ["guidance=classifier", f"guidance.classifier={classifier}", f"guidance.base={base}", "num_samples=1"]
    plain, one, far = (
        sampled(*common, f"sampler={sampler}", "sampler.steps=3", f"guidance.scale={scale}") for scale in (0, 1, 9)
    )
    neutral, guided = (plain, one) if base == "unconditional" else (one, plain)
    cfg = sampled("num_samples=1", f"sampler={sampler}", "sampler.steps=3", f"guidance.scale={int(neutral is one)}")
    assert same(neutral, cfg)
    assert not same(neutral, guided)
    assert not same(neutral, far)


@pytest.mark.slow
def test_a_classifier_can_be_added_to_classifier_free_guidance(sampled, classifier):
    common = ["num_samples=1", "guidance.scale=3"]
    together = ["guidance=cfg_classifier", f"guidance.classifier={classifier}"]
    neutral, both = (sampled(*common, *together, f"guidance.classifier_scale={scale}") for scale in (1, 9))
    assert same(neutral, sampled(*common))
    assert not same(neutral, both)


@pytest.mark.slow
def test_compare_writes_guided_and_unguided_samples_of_the_same_noise(sampled, classifier):
    common = ["labels=[3,7]", "num_samples=2"]
    folder = sampled(*common, "compare=true", "guidance.scale=9")
    written = {"labels.txt", "samples.npz", "samples.png", "unguided.npz", "unguided.png"}
    assert {path.name for path in folder.iterdir()} == {*RECORD, *written}
    assert (folder / "labels.txt").read_text() == "class 3: 3 3\nclass 7: 7 7\n"
    assert same(folder, sampled(*common, "guidance.scale=9"))
    (folder / "unguided.npz").replace(folder / "samples.npz")
    assert same(folder, sampled(*common, "guidance.scale=1"))
    by_classifier = ["guidance=classifier", f"guidance.classifier={classifier}", "guidance.scale=9"]
    folder = sampled(*common, *by_classifier, "compare=true")
    (folder / "unguided.npz").replace(folder / "samples.npz")
    assert same(folder, sampled(*common, "guidance.scale=0"))


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"shape": [3, 8, 8]}, "shape of images of the first: 1, 8, 8; of the second: 3, 8, 8"),
        pytest.param({"class_names": ["cat"] * 10}, "classes of the first: class 0, class 1,", marks=pytest.mark.slow),
        pytest.param(
            {"range": [0, 1]},
            "range of pixels of the first: -1.0, 1.0; of the second: 0, 1",
            marks=pytest.mark.slow,
        ),
        (
            {"log_snr_min": -9},
            "schedule of the first: Cosine(log_snr_min=-15.0); of the second:",
        ),
    ],
)
def test_a_classifier_of_other_data_is_refused_with_both_files_and_the_difference(
    change, difference, refused, checkpoint, classifier, tmp_path
):
    saved = torch.load(classifier, weights_only=True)
    record = saved["guided_diffusion"]
    if "log_snr_min" in change:
        record["config"]["schedule"] |= change
    else:
        record["data"] |= change
    if "shape" in change:  # a network for three channels
        for state in (saved["state_dict"], saved["current_model_state"]):
            state["classifier.backbone.input.weight"] = state["classifier.backbone.input.weight"].expand(-1, 3, -1, -1)
    other = tmp_path / "other.ckpt"
    torch.save(saved, other)
    line = refused("sample", f"checkpoint={checkpoint}", "guidance=classifier", f"guidance.classifier={other}")
    assert line.startswith(f"error: {checkpoint} and {other} can't work together: {difference}")


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        pytest.param(
            ["guidance=classifier"],
            "guidance.classifier is missing: add guidance.classifier=PATH",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            ["guidance=classifier", "guidance.classifier=nowhere.ckpt"],
            "there is no checkpoint at",
            marks=pytest.mark.slow,
        ),
        (["guidance=classifier", "guidance.classifier={checkpoint}"], "not of a time-aware classifier"),
        (["guidance=classifier", "guidance.classifier={classifier}", "guidance.temperature=0"], "must be positive"),
    ],
)
def test_an_unusable_classifier_is_refused(overrides, message, refused, checkpoint, classifier):
    overrides = [override.format(checkpoint=checkpoint, classifier=classifier) for override in overrides]
    assert message in refused("sample", f"checkpoint={checkpoint}", "hydra.run.dir=here", *overrides)


@pytest.mark.slow
def test_a_sweep_gives_every_job_a_folder_of_its_own(call, checkpoint, tmp_path):
    called = call("sample", "-m", f"checkpoint={checkpoint}", "num_samples=1", "guidance.scale=0,3")
    assert called.status == 0
    (sweep,) = (tmp_path / "outputs" / "samples").iterdir()
    assert sorted(path.name for path in sweep.iterdir()) == ["0", "1", "multirun.yaml"]
    assert [OmegaConf.load(sweep / job / "config.yaml").guidance.scale for job in "01"] == [0, 3]
    assert not same(sweep / "0", sweep / "1")


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_or_foreign_checkpoint_is_named_on_one_line(content, refused, tmp_path):
    file = tmp_path / "damaged.ckpt"
    if content is None:
        torch.save({"state_dict": {}}, file)
    else:
        file.write_bytes(content)
    assert refused("sample", f"checkpoint={file}", "hydra.run.dir=here").startswith(f"error: {file} is ")


# Points


@pytest.fixture
def sampled_points(compose, points_run, tmp_path):
    def folder(*overrides):
        overrides = (f"checkpoint={points_run / 'checkpoints' / 'last.ckpt'}", *overrides)
        return sample(compose(*overrides, program="sample", output_dir=tmp_path / "points"), overrides)

    return folder


def test_points_are_written_as_a_scatter_plot_and_arrays(sampled_points):
    folder = sampled_points("labels=[2,0]", "num_samples=4")
    assert sorted(path.name for path in folder.iterdir()) == [*RECORD, "samples.npz", "samples.png"]
    assert images(folder).shape == (8, 2)
    assert images(folder).abs().max() <= 1
    assert labels(folder) == [2] * 4 + [0] * 4
    width, height = Image.open(folder / "samples.png").size
    assert 1.5 < width / height < 2.5  # a panel for each class, side by side


def test_a_thousand_points_of_each_class_are_the_default(sampled_points):
    assert images(sampled_points("labels=[1]")).shape == (1000, 2)


def test_points_of_an_earlier_run_are_started_from_and_several_scales_are_drawn(sampled_points):
    first = sampled_points("labels=[2,0]", "num_samples=6")
    before = images(first)
    folder = sampled_points(f"from={first / 'samples.npz'}", "strength=0.05", "guidance.scale=[1,3]")
    assert images(folder).shape == (2, 12, 2)
    assert labels(folder) == [2] * 6 + [0] * 6
    assert (images(folder) - before).abs().mean() < 0.2
    width, height = Image.open(folder / "samples.png").size
    assert 0.5 < width / height < 0.85  # two classes; the points that were given, and two scales


@pytest.mark.slow
def test_an_animation_of_points_has_a_changing_frame_for_every_step(sampled_points):
    folder = sampled_points("animate=true", "sampler.steps=4", "num_samples=50")
    with Image.open(folder / "animation.gif") as gif:
        assert gif.n_frames == 4
        frames = []
        for number in range(4):
            gif.seek(number)
            frames.append(np.asarray(gif.convert("RGB")).astype(int))
    assert all(abs(one - other).max() > 100 for one, other in pairwise(frames))
    assert len(imageio.imread(folder / "animation.mp4")) == 4 + 20
    assert all((folder / f"animation.{suffix}").stat().st_size < 2e6 for suffix in ("gif", "mp4"))


def test_the_arrays_are_written_even_if_the_picture_fails(sampled, monkeypatch, tmp_path):
    monkeypatch.setattr("guided_diffusion.evaluation.modalities.images.save_labelled_grid", None)
    with pytest.raises(ValueError, match=r"the picture is missing, the samples are in .*samples\.npz$"):
        sampled("labels=[3]", "num_samples=1")
    assert images(tmp_path / "0").shape == (1, 1, 8, 8)


def test_a_missing_ffmpeg_is_reported_before_sampling(sampled, monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGEIO_FFMPEG_EXE", "no-such-program")
    with pytest.raises(ValueError, match=r"an animation needs ffmpeg, which can't be run: .*no-such-program"):
        sampled("labels=[3]", "num_samples=1", "animate=true")
    assert not (tmp_path / "0").exists()
