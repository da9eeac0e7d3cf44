"""Files of trained models, as data: checkpoints of a training, and safetensors files of one set of weights.

Nothing in them is run: a checkpoint is unpickled by torch's list of harmless types, and safetensors has no pickle.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from guided_diffusion.utils.files import atomic_write

Weights = Literal["ema", "raw"]


SUFFIX = ".safetensors"
"""How the name of an exported model ends."""


LAST = Path("checkpoints") / "last.ckpt"
"""Where the folder of a training has its last checkpoint."""


RECORD: dict[str, type] = {"format": int, "kind": str, "config": dict, "data": dict}
"""What is in a record at least."""


def read_model_file(path: Path) -> dict[str, Any]:
    """``state_dict``, ``guided_diffusion`` (the record) and, of a checkpoint, what else Lightning keeps in it.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is damaged, holds code or is of another program.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path.absolute()}{_folder_hint(path.absolute())}")
    content = _read_safetensors(path) if path.suffix == SUFFIX else _read_checkpoint(path)
    record = content.get("guided_diffusion") if isinstance(content, dict) else None
    if not isinstance(record, dict) or not all(isinstance(record.get(key), kind) for key, kind in RECORD.items()):
        raise ValueError(f"{path} is not a checkpoint of guided_diffusion")
    return content


def weights_of(weights: str, content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """``ema``, or ``raw`` for those that training went on with; the same where there was no average.

    Raises:
        ValueError: for another name, or if the file was exported with the other weights.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"weights must be ema or raw, got {weights!r}")
    names = _names(content)
    if weights not in names:
        raise ValueError(f"{path} holds the {names[0]} weights alone: add weights={names[0]}")
    average = content["state_dict"]
    return average if weights == "ema" else content.get("current_model_state", average)


def export(checkpoint: str | Path, output: str | Path, weights: str = "ema") -> None:
    """Write one set of weights of a checkpoint, and its record, as a safetensors file that ``load`` reads.

    Raises:
        FileNotFoundError: if there is no such checkpoint.
        ValueError: if it is damaged or of another program, for other ``weights``, or another ending of ``output``.
    """
    if Path(output).suffix != SUFFIX:
        raise ValueError(f"output must end in {SUFFIX}, got {output}")
    content = read_model_file(Path(checkpoint))
    state = {key: value.contiguous() for key, value in weights_of(weights, content, Path(checkpoint)).items()}
    names = [weights] if "current_model_state" in content else _names(content)
    record = {**content["guided_diffusion"], "weights": names}
    with atomic_write(output) as path:
        save_file(state, path, {"format": "pt", "guided_diffusion": json.dumps(record)})


def _folder_hint(path: Path) -> str:
    """``: it is a folder; did you mean the checkpoint in it?``, or nothing."""
    if not path.is_dir():
        return ""
    inside = next((file for file in (path / LAST, path / LAST.name) if file.is_file()), None)
    return f": it is a folder; did you mean {inside}?" if inside else ": it is a folder"


def _names(content: dict[str, Any]) -> list[str]:
    """What the weights in this file may be called."""
    return content["guided_diffusion"].get("weights", list(get_args(Weights)))


def _read_checkpoint(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not a checkpoint, or holds code, which is not loaded") from error
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise ValueError(f"{path} is damaged or not a checkpoint: {reason}") from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get("guided_diffusion", "null"))
            return {"state_dict": {key: file.get_tensor(key) for key in file.keys()}, "guided_diffusion": record}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error
