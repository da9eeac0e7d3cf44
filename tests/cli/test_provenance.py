import json
import os
import shlex
import subprocess
import sys

import pytest
import torch

from guided_diffusion.cli.provenance import environment, git_state, reproduce


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    """A package in a new git checkout."""
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "first")
    return package


def test_the_git_state_is_the_commit_and_whether_files_differ(checkout):
    state = git_state(checkout)
    assert len(state["commit"]) == 40
    assert not state["dirty"]
    (checkout / "__init__.py").write_text("changed = True\n")
    assert git_state(checkout) == {"commit": state["commit"], "dirty": True}


def test_a_package_outside_any_checkout_has_no_git_state(checkout, tmp_path):
    (tmp_path / "__init__.py").write_text("")
    assert git_state(tmp_path) is None
    ignored = checkout.parent / "site-packages"
    ignored.mkdir()
    (ignored / "__init__.py").write_text("")
    assert git_state(ignored) is None


def test_the_environment_is_plain_data_with_versions_and_hardware():
    found = json.loads(json.dumps(environment(5, "cpu")))
    assert found["seed"] == 5
    assert torch.__version__.startswith(found["packages"]["torch"].partition("+")[0])
    assert all(found["packages"].values())
    assert found["threads"] == torch.get_num_threads()
    assert found["python"] == sys.version.split()[0]


def test_the_script_quotes_the_command_and_leaves_out_its_folder():
    found = environment(0, "cpu") | {"git": {"commit": "abc", "dirty": True}}
    script = reproduce("python -m guided_diffusion.train 'name=a b' hydra.run.dir=here", found)
    assert script.startswith("#!/bin/sh\n# git checkout abc\n# Files differed")
    assert script.splitlines()[-1] == "exec python -m guided_diffusion.train 'name=a b' \"$@\""


@pytest.mark.slow
def test_the_script_reproduces_the_weights_exactly(call, minimal, shell, tmp_path):
    assert call("train", *minimal, "name=its mine", "hydra.run.dir=here", "seed=7").status == 0
    script = tmp_path / "here" / "reproduce.sh"
    assert os.access(script, os.X_OK)
    done = shell(script, "hydra.run.dir=again")
    assert done.returncode == 0, done.stderr
    first, second = (
        torch.load(tmp_path / folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        for folder in ("here", "again")
    )
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    recorded = json.loads((tmp_path / "here" / "environment.json").read_text())
    assert recorded["seed"] == 7
    assert shlex.split(script.read_text().splitlines()[-1])[-2] == "seed=7"


def test_samples_are_recorded_too(call, checkpoint, tmp_path):
    assert call("sample", f"checkpoint={checkpoint}", "num_samples=1", "hydra.run.dir=here").status == 0
    assert (tmp_path / "here" / "environment.json").is_file()
    assert f"checkpoint={checkpoint}" in (tmp_path / "here" / "reproduce.sh").read_text()
