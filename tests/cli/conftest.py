"""What the tests of the command-line programs share."""

import pytest
from hydra._internal.hydra import Hydra


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
