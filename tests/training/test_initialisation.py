"""``init_from`` from the command line: a new training that starts from the weights of another one."""

import shutil

import pytest
import torch

from guided_diffusion.checkpoints.initial_weights import InitialWeights


@pytest.fixture
def arguments(tiny):
    """The overrides of the tiny training without samples, for twelve classes."""
    plain = [override for override in tiny if not override.startswith("callbacks.")]
    return [*plain, "callbacks=minimal", "data.num_classes=12", "trainer.max_steps=6", "callbacks.last.every_n_steps=2"]


def saved(run):
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def same_weights(one, other):
    names = ("state_dict", "current_model_state")
    return all(torch.equal(value, other[name][key]) for name in names for key, value in one[name].items())


@pytest.mark.slow
def test_a_training_starts_at_step_0_from_the_weights_of_another_and_records_where_they_are_from(
    call, arguments, run_dir, tmp_path
):
    called = call("train", *arguments, f"init_from={run_dir}", "output_dir=new", "module.optimizer.lr=1e-9")
    assert called.status == 0, called.err
    (line,) = [line for line in called.out.splitlines() if line.startswith("init_from: ")]
    assert "condition.label.weight except for class 10, class 11" in line
    checkpoint, weights = saved(tmp_path / "new"), InitialWeights.read(run_dir)
    assert checkpoint["global_step"] == 6
    origin = checkpoint["guided_diffusion"]["init_from"]
    assert (origin["path"], origin["content"]) == (str(run_dir / "checkpoints" / "last.ckpt"), weights.content)
    for name in ("state_dict", "current_model_state"):
        last = checkpoint[name]["denoiser.backbone.input.weight"]
        torch.testing.assert_close(last, weights.state["input.weight"], atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["init_from=nowhere"], "init_from: there is no run or checkpoint at"),
        (["init_from={run}", "network.width=16"], "make equal: network.width (8 there, 16 here)"),
        pytest.param(
            ["init_from={run}", "resume={run}"], "belongs to another training, which differs in", marks=pytest.mark.slow
        ),
        pytest.param(
            ["init_from=nowhere", "resume=auto"], "init_from: there is no run or checkpoint at", marks=pytest.mark.slow
        ),
    ],
)
def test_weights_that_cannot_be_used_are_refused_on_one_line(overrides, message, call, arguments, run_dir, tmp_path):
    called = call("train", *arguments, *(one.format(run=run_dir) for one in overrides), "output_dir=here")
    assert called.status == 1
    assert message in called.err.splitlines()[-1]
    assert not (tmp_path / "here" / "checkpoints").exists()


@pytest.mark.slow
@pytest.mark.parametrize("then", ["as it was", "moved", "deleted"])
def test_a_killed_training_resumes_exactly_wherever_its_initial_weights_are_now(
    then, shell, arguments, run_dir, tmp_path
):
    first = tmp_path / "first"
    shutil.copytree(run_dir, first)
    program = ("-m", "guided_diffusion.train", *arguments, "name=tuned")
    whole = shell(*program, f"init_from={first}", "output_dir=whole")
    assert whole.returncode == 0, whole.stderr
    stop = "+callbacks.stop._target_=killed.AtStep4"
    (tmp_path / "killed.py").write_text(
        "import os, signal\n"
        "from pytorch_lightning import Callback\n"
        "class AtStep4(Callback):\n"
        "    def on_train_batch_end(self, trainer, *arguments):\n"
        "        if trainer.global_step == 5 and not os.path.exists('killed'):\n"
        "            open('killed', 'w').close()\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    again = (*program, stop, "output_dir=interrupted", "resume=auto")
    assert shell(*again, f"init_from={first}").returncode == -9
    if then == "moved":
        first = first.rename(tmp_path / "elsewhere")
    elif then == "deleted":
        shutil.rmtree(first)
    resumed = shell(*again, f"init_from={first}")
    assert resumed.returncode == 0, resumed.stderr
    assert "continuing from step 4" in resumed.stdout
    assert "init_from: " not in resumed.stdout
    one, other = saved(tmp_path / "whole"), saved(tmp_path / "interrupted")
    assert same_weights(one, other)
    origin, expected = (checkpoint["guided_diffusion"]["init_from"] for checkpoint in (other, one))
    assert origin == expected
