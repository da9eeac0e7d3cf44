"""``init_from``: a new training that starts from the weights of another one."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from guided_diffusion.checkpoints.files import read_model_file
from guided_diffusion.checkpoints.initial_weights import InitialWeights
from guided_diffusion.training.resume.find_run import config_of
from guided_diffusion.utils.distributed import rank_zero_print


def resolve_init_from(config: DictConfig, search: Sequence[Path]) -> InitialWeights | None:
    """Read the weights that ``init_from`` names, and replace the path in the config by the path and their content.

    The content, and not the path, is part of the training's identity. If the file is gone, a training in ``search``
    that started from this path can still be resumed; the content is then the one that it noted.

    Returns:
        The weights, or ``None`` if there is no ``init_from``, or only a training to resume.

    Raises:
        FileNotFoundError: If there is no such file, and no training to resume.
        ValueError: If the file can't be used, or is no longer what a saved config notes.
    """
    value = config.get("init_from")
    if value is None:
        return None
    noted: dict[str, Any] = dict(value) if OmegaConf.is_dict(value) else {"path": value, "content": None}
    path = Path(str(noted["path"])).absolute()
    if path.exists():
        weights = InitialWeights.read(path)
        if noted["content"] not in (None, weights.content):
            raise ValueError(f"init_from: the weights in {path} are no longer those that the config notes")
        config.init_from = {"path": str(path), "content": weights.content}
        return weights
    content = noted["content"] or _noted_content(path, _resumed_runs(config.resume, search))
    if not (config.resume and content):
        raise FileNotFoundError(f"init_from: there is no run or checkpoint at {path}")
    config.init_from = {"path": str(path), "content": content}
    return None


def _resumed_runs(resume: str | None, search: Sequence[Path]) -> list[Path]:
    if resume in (None, "auto"):
        return list(search)
    path = Path(str(resume)).absolute()
    return [path if path.is_dir() else path.parent.parent]


def _noted_content(path: Path, runs: Sequence[Path]) -> str | None:
    """Return the content of the weights that one of these runs found at ``path``, ``None`` if none did."""
    origins = [config_of(run).get("init_from") or {} for run in runs]
    return next((origin["content"] for origin in origins if origin.get("path") == str(path)), None)


def initialise(
    network: nn.Module, record: dict[str, Any], weights: InitialWeights | None, checkpoint: Path | None
) -> None:
    """Load the initial weights into the network and note in the training's record, in place, where they are from.

    A training that continues from a ``checkpoint`` loads nothing, and takes the note from there.

    Raises:
        ValueError: If the weights do not fit the network.
    """
    if record["config"].get("init_from") is None:
        return
    if checkpoint is not None:
        record["init_from"] = read_model_file(checkpoint)["guided_diffusion"]["init_from"]
        return
    if weights is None:  # the run to resume has no checkpoint yet
        raise FileNotFoundError(f"init_from: there is no run or checkpoint at {record['config']['init_from']['path']}")
    record["init_from"], line = weights.load_into(network, record)
    rank_zero_print(line)
