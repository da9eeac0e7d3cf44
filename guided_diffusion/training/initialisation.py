"""Starting a new training from the weights of another one, which ``init_from`` names."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from guided_diffusion.checkpoints.files import read_model_file
from guided_diffusion.checkpoints.initial_weights import InitialWeights
from guided_diffusion.training.resume.run_files import config_of
from guided_diffusion.utils.distributed import rank_zero_print


def resolve_init_from(config: DictConfig, search: Sequence[Path]) -> InitialWeights | None:
    """Read the weights that ``init_from`` names, and replace it, in the config, by their path and a hash of them.

    A training is recognized by the hash, ``content``, and not by the path. If the file is gone, ``None`` is returned,
    and a training in ``search`` that started from this path can still be resumed; its config has the hash.

    Raises:
        FileNotFoundError: If there is no such file, and no training to resume.
        ValueError: If the file can't be used, or its weights have another hash than a saved config has.
    """
    value = config.get("init_from")
    if value is None:
        return None
    saved: dict[str, Any] = dict(value) if OmegaConf.is_dict(value) else {"path": value, "content": None}
    path = Path(str(saved["path"])).absolute()
    if path.exists():
        weights = InitialWeights.read(path)
        if saved["content"] not in (None, weights.content):
            raise ValueError(
                f"init_from: the weights in {path} have changed since this config was saved: restore the file, or give "
                "init_from=PATH to start from what it holds now"
            )
        config.init_from = {"path": str(path), "content": weights.content}
        return weights
    content = saved["content"] or _saved_content(path, _resumable_runs(config.resume, search))
    if not (config.resume and content):
        raise FileNotFoundError(f"init_from: there is no run or checkpoint at {path}")
    config.init_from = {"path": str(path), "content": content}
    return None


def _resumable_runs(resume: str | None, search: Sequence[Path]) -> list[Path]:
    """Return the folders of the runs that may be continued: those in ``search``, or the one that ``resume`` names."""
    if resume in (None, "auto"):
        return list(search)
    path = Path(str(resume)).absolute()
    return [path if path.is_dir() else path.parent.parent]


def _saved_content(path: Path, runs: Sequence[Path]) -> str | None:
    """Return the hash of the weights that one of these runs read at ``path``, ``None`` if none did."""
    origins = [config_of(run).get("init_from") or {} for run in runs]
    return next((origin["content"] for origin in origins if origin.get("path") == str(path)), None)


def initialise(
    network: nn.Module, record: dict[str, Any], weights: InitialWeights | None, checkpoint: Path | None
) -> None:
    """Load the initial weights into the network, and add their origin to the training's record, both in place.

    A training that continues from a ``checkpoint`` loads nothing, and copies the origin from there.

    Raises:
        FileNotFoundError: If there are neither weights nor a checkpoint.
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
