import pytest

from guided_diffusion.cli.checks import (
    check_guide_is_used,
    check_judge_is_used,
    check_keys_of_module,
    check_no_key_replaces_another,
    check_other_models_guide,
)


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("guidance.scale=2", "scales=[1,3]"),
        ("classifier=a.ckpt", "guidance.classifier=b.ckpt"),
        ("label_dropout=0.2", "module.label_dropout=0.1"),
        ("module.optimizer.lr=1e-3", "module.lr_scheduler.max_lr=2e-3"),
        ("module.optimizer.adamw_lr=1e-3", "module.lr_scheduler.max_lr=[2e-3,2e-3]"),
        ("judge.width=8", "judge.checkpoint=judge.pt"),
        ("judge.second.steps=8", "judge.second.checkpoint=judge.pt"),
    ],
)
def test_a_key_beside_another_that_replaces_it_is_refused(key, other):
    (name, _, _), (other_name, _, _) = key.partition("="), other.partition("=")
    with pytest.raises(ValueError, match=f"^{name} has no effect beside {other_name}: leave one of them out$"):
        check_no_key_replaces_another(["seed=1", other, f"++{key}"])
    check_no_key_replaces_another([key])
    check_no_key_replaces_another([other])
    check_no_key_replaces_another([key, f"{other_name}=null"])


@pytest.mark.parametrize("override", ["label_dropout=0.2", "weighting=min_snr", "weighting.gamma=3"])
def test_settings_of_a_diffusion_model_are_refused_for_a_classifier(override, compose, classifier_overrides):
    classifier = compose(*classifier_overrides).module
    key = override.partition("=")[0].partition(".")[0]
    with pytest.raises(ValueError, match=rf"^{key} has no effect on ClassifierModule, .*: leave it out$"):
        check_keys_of_module([*classifier_overrides, override], classifier)
    check_keys_of_module(list(classifier_overrides), classifier)
    check_keys_of_module([override], compose().module)


@pytest.mark.parametrize("override", ["time_sampling=log_normal", "time_sampling.mean=0"])
def test_the_times_of_training_are_refused_for_a_module_that_does_not_take_them(override, compose):
    for module in ("diffusion", "classifier"):
        check_keys_of_module([override], compose(f"module={module}").module)
    with pytest.raises(ValueError, match=r"^time_sampling has no effect on Own, which has no such setting: leave it"):
        check_keys_of_module([override], {"_target_": "my_package.Own"})


@pytest.mark.parametrize(("key", "option"), [("classifier", "classifier"), ("weak", "autoguidance")])
def test_a_model_that_the_guidance_does_not_use_is_refused(key, option, compose):
    with pytest.raises(ValueError, match=rf"^{key} has no effect on this guidance: add guidance={option}, or leave"):
        check_other_models_guide([f"{key}=a.ckpt"], compose().guidance)
    check_other_models_guide([f"{key}=a.ckpt"], compose(f"guidance={option}").guidance)
    check_other_models_guide([f"{key}=null"], compose().guidance)
    with pytest.raises(ValueError, match=rf"^{key} has no effect beside guidance.{key}: leave one of them out"):
        check_no_key_replaces_another([f"{key}=a.ckpt", f"guidance.{key}=b.ckpt"])


def test_settings_of_a_guide_that_is_not_trained_are_refused(compose):
    auto = ["guidance=classifier", "classifier=auto"]
    check_guide_is_used([*auto, "guide.steps=3"], compose(*auto).guidance)
    for overrides in (["guidance=cfg"], ["guidance=classifier", "classifier=a.ckpt"]):
        for setting in ("guide.steps=3", "guide=points", "network@guide.network=classifier_8"):
            with pytest.raises(ValueError, match=r"^guide has no effect without guidance=classifier classifier=auto"):
                check_guide_is_used([*overrides, setting], compose(*overrides).guidance)


@pytest.mark.parametrize("override", ["judge=lenet", "judge.width=8"])
def test_a_judge_of_points_is_refused(override):
    with pytest.raises(ValueError, match=r"^judge has no effect on points, which need none: leave it out$"):
        check_judge_is_used([override], "points")
    check_judge_is_used([override], "images")
    check_judge_is_used(["seed=1"], "points")


@pytest.mark.parametrize("arguments", [["train"], ["evaluate", "checkpoint=none.ckpt"]], ids=["train", "evaluate"])
def test_both_programs_refuse_a_scale_beside_scales(arguments, call):
    called = call(*arguments, "guidance.scale=2", "scales=[1]")
    assert called.status == 1
    assert called.err == "error: guidance.scale has no effect beside scales: leave one of them out\n"
