import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import guided_diffusion
from guided_diffusion.cli.provenance import environment, git_state, reproduce

ROOT = Path(guided_diffusion.__file__).parent.parent


def git(folder, *arguments):
    identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
    subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path):
    """A package in a checkout of its own."""
    package = tmp_path / "checkout" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "first")
    return package


def test_the_commit_is_that_of_the_checkout_and_a_change_makes_it_dirty(checkout):
    state = git_state(checkout)
    assert len(state["commit"]) == 40
    assert not state["dirty"]
    (checkout / "__init__.py").write_text("changed = True\n")
    assert git_state(checkout) == {"commit": state["commit"], "dirty": True}


def test_a_package_that_is_in_no_checkout_has_no_commit(checkout, tmp_path):
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


def test_the_command_is_quoted_and_gets_a_folder_of_its_own():
    found = environment(0, "cpu") | {"git": {"commit": "abc", "dirty": True}}
    script = reproduce("python -m guided_diffusion.train 'name=a b' hydra.run.dir=here", found)
    assert script.startswith("#!/bin/sh\n# git checkout abc\n# Files differed")
    assert script.splitlines()[-1] == "exec python -m guided_diffusion.train 'name=a b' \"$@\""


def test_a_run_is_reproduced_to_the_bit_by_its_script(call, tiny, tmp_path):
    minimal = [*(one for one in tiny if not one.startswith("callbacks.")), "callbacks=minimal", "name=its mine"]
    assert call("train", *minimal, "hydra.run.dir=here", "seed=7").status == 0
    script = tmp_path / "here" / "reproduce.sh"
    assert os.access(script, os.X_OK)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [script, "hydra.run.dir=again"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
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


def test_samples_are_recorded_too(call, run_dir, tmp_path):
    checkpoint = run_dir / "checkpoints" / "last.ckpt"
    assert call("sample", f"checkpoint={checkpoint}", "num_samples=1", "hydra.run.dir=here").status == 0
    assert (tmp_path / "here" / "environment.json").is_file()
    assert f"checkpoint={checkpoint}" in (tmp_path / "here" / "reproduce.sh").read_text()
