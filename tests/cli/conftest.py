"""What the tests of the command-line programs share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from hydra._internal.hydra import Hydra

import guided_diffusion


@pytest.fixture
def checkpoint(run_dir):
    """The checkpoint of a tiny diffusion model; to be read only."""
    return run_dir / "checkpoints" / "last.ckpt"


@pytest.fixture
def classifier(classifier_run):
    """The checkpoint of a tiny classifier that guides the diffusion model; to be read only."""
    return classifier_run / "checkpoints" / "last.ckpt"


@pytest.fixture
def unscaled(tiny):
    """The overrides of the tiny training without its scales."""
    return [override for override in tiny if not override.startswith("scales")]


@pytest.fixture
def minimal(tiny):
    """The overrides of the tiny training without the callbacks that sample."""
    return [*(override for override in tiny if not override.startswith("callbacks.")), "callbacks=minimal"]


@pytest.fixture
def shell(tmp_path):
    """Run Python as in a shell, in a folder where nothing of the tests is imported."""

    def run(*arguments):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"PYTHONPATH": str(Path(guided_diffusion.__file__).parent.parent), "PATH": path}
        is_for_python = str(arguments[0]).startswith("-") or str(arguments[0]).endswith(".py")
        command = [sys.executable, *arguments] if is_for_python else arguments
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def refused(call, tmp_path, monkeypatch):
    """Call a program that must end with status 1, one line and no file more; return the line."""
    monkeypatch.setattr(Hydra, "get_mode", lambda *_, **__: None)  # it composes the config a second time

    def line(program, *arguments):
        before = set(tmp_path.iterdir())
        called = call(program, *arguments)
        assert (called.status, len(called.err.splitlines())) == (1, 1), called.err
        assert called.err.startswith("error: ")
        assert set(tmp_path.iterdir()) == before
        return called.err.strip()

    return line
