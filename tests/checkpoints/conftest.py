"""Checkpoints to read, to edit and to damage."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch


class Trap:
    """Code in two forms that would create a file if it were run: a pickle, and a node of a config."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.node = {"_target_": "builtins.open", "file": str(file), "mode": "w"}

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str, str]]:
        return open, (str(self.file), "w")

    @property
    def was_run(self) -> bool:
        return self.file.exists()


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path / "code-was-run")


@pytest.fixture
def checkpoint(run_dir: Path) -> Path:
    """The last checkpoint of a diffusion model; to be read only."""
    return run_dir / "checkpoints" / "last.ckpt"


@pytest.fixture
def classifier_checkpoint(classifier_run: Path) -> Path:
    """The last checkpoint of a classifier; to be read only."""
    return classifier_run / "checkpoints" / "last.ckpt"


@pytest.fixture
def content(checkpoint: Path) -> dict[str, Any]:
    """The content of ``checkpoint``, which a test may change."""
    return torch.load(checkpoint, weights_only=True)


@pytest.fixture
def with_record(content: dict[str, Any], tmp_path: Path) -> Callable[[Callable[[dict[str, Any]], Any]], Path]:
    """Write ``checkpoint`` again after this function has changed its record, and return the path."""

    def write(change: Callable[[dict[str, Any]], Any]) -> Path:
        edited = copy.deepcopy(content)
        change(edited["guided_diffusion"])
        torch.save(edited, tmp_path / "edited.ckpt")
        return tmp_path / "edited.ckpt"

    return write


@pytest.fixture(scope="session")
def flatten() -> Callable[[dict[str, torch.Tensor]], torch.Tensor]:
    """All numbers of a state dict in one tensor."""
    return lambda state: torch.cat([tensor.flatten() for tensor in state.values()])
