"""Reading checkpoints and exported models, refusing damaged ones, and exporting a set of weights as safetensors.

No code in a file is run: checkpoints are unpickled with torch's list of safe types, and safetensors files hold none.
"""

import errno
import json
import pickle
import zipfile
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from guided_diffusion.checkpoints.renamed import update_targets
from guided_diffusion.utils.files import atomic_write

Weights = Literal["ema", "raw"]

SUFFIX = ".safetensors"
"""The suffix of an exported model."""
LAST = Path("checkpoints") / "last.ckpt"
"""The path of the last checkpoint, relative to the folder of its training."""


def read_model_file(path: Path) -> dict[str, Any]:
    """Return the content of a checkpoint or an exported model.

    Returns:
        ``state_dict``, ``guided_diffusion`` (the record) and, for a checkpoint, Lightning's other entries. In the
        config of the record, each ``_target_`` of an earlier version has its present name.

    Raises:
        FileNotFoundError: If there is no such file.
        OSError: If the system can't read the file, which may be intact.
        ValueError: If the file is damaged, holds code or was written by another program.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint at {path.absolute()}{_path_hint(path.absolute())}")
    try:
        content = _read_safetensors(path) if path.suffix == SUFFIX else _read_checkpoint(path)
    except OSError as error:
        raise type(error)(f"{path} can't be read: {error.strerror or error}") from error
    record = content.get("guided_diffusion") if isinstance(content, dict) else None
    required = {"format": int, "kind": str, "config": dict, "data": dict}
    if not isinstance(record, dict) or not all(isinstance(record.get(key), kind) for key, kind in required.items()):
        raise ValueError(f"{path} is not a checkpoint of guided_diffusion")
    return content | {"guided_diffusion": record | {"config": update_targets(record["config"])}}


def weights_of(weights: str, content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """Return one set of weights from the content of a file.

    Args:
        weights: ``ema`` for the moving average, ``raw`` for the weights that the optimizer updates. Both are the
            same if training kept no average.
        content: The result of ``read_model_file``.

    Raises:
        ValueError: If ``weights`` is another name, or the file holds only the other weights.
    """
    if weights not in get_args(Weights):
        raise ValueError(f"weights must be ema or raw, got {weights!r}")
    available = available_weights(content)
    if weights not in available:
        raise ValueError(f"{path} holds the {available[0]} weights alone: add weights={available[0]}")
    average = content["state_dict"]
    return average if weights == "ema" else content.get("current_model_state", average)


def export(checkpoint: str | Path, output: str | Path, weights: str = "ema") -> None:
    """Write one set of weights of a checkpoint, and its record, as a safetensors file that ``load`` reads.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        ValueError: If ``output`` has another suffix, or for the reasons of ``read_model_file`` and ``weights_of``.
    """
    if Path(output).suffix != SUFFIX:
        raise ValueError(f"output must end in {SUFFIX}, got {output}")
    content = read_model_file(Path(checkpoint))
    state = {key: value.contiguous() for key, value in weights_of(weights, content, Path(checkpoint)).items()}
    names = [weights] if "current_model_state" in content else available_weights(content)
    record = content["guided_diffusion"] | {"weights": names}
    with atomic_write(output) as path:
        save_file(state, path, {"format": "pt", "guided_diffusion": json.dumps(record)})


def _path_hint(path: Path) -> str:
    """Return the end of a message that names the checkpoint in the folder at ``path``, a similar path or the newest."""
    if path.is_dir():
        inside = next((file for file in (path / LAST, path / LAST.name) if file.is_file()), None)
        return f": it is a folder; did you mean {inside}?" if inside else ": it is a folder"
    folder = next(parent for parent in path.parents if parent.is_dir())
    misspelt, *rest = path.relative_to(folder).parts
    for name in get_close_matches(misspelt, (entry.name for entry in folder.iterdir())):
        if (file := folder.joinpath(name, *rest)).is_file():
            return f"; did you mean {file}?"
    found = [file for run in ("*/*", "*/sweep_*/*") for file in Path("outputs").glob(f"{run}/{LAST}") if file.is_file()]
    newest = max(found, key=lambda file: file.stat().st_mtime, default=None)
    return f"; the newest one here is {newest}" if newest else ""


def available_weights(content: dict[str, Any]) -> list[str]:
    """Return the names of the sets of weights in the content of a file: ``ema``, ``raw`` or both."""
    return content["guided_diffusion"].get("weights", list(get_args(Weights)))


def _read_checkpoint(path: Path) -> Any:
    if path.suffix != LAST.suffix and not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is not a checkpoint: name the {LAST} of a training, or a {SUFFIX} file that export wrote"
        )
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        if error.errno != errno.EINVAL:  # by which torch answers to some files that are cut short
            raise
        raise ValueError(f"{path} is damaged or not a checkpoint: it is cut short") from error
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} is not a checkpoint, or holds code, which is not loaded") from error
    except (RuntimeError, EOFError, LookupError, ValueError, TypeError, AttributeError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise ValueError(f"{path} is damaged or not a checkpoint: {reason}") from error


def _read_safetensors(path: Path) -> dict[str, Any]:
    try:
        with safe_open(path, "pt") as file:
            record = json.loads((file.metadata() or {}).get("guided_diffusion", "null"))
            return {"state_dict": {key: file.get_tensor(key) for key in file.keys()}, "guided_diffusion": record}  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is damaged or not a safetensors file: {error}") from error
