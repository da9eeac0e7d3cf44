"""A model as one safetensors file: ``python -m guided_diffusion.export checkpoint=PATH output=FILE.safetensors``.

Such a file holds one set of weights and, as JSON, the record from which ``load`` rebuilds the model. It is read
without pickle, by other programs as well. It has no state of the optimizer: training does not go on from it.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

from omegaconf import MISSING, OmegaConf

from guided_diffusion.checkpoints.files import export
from guided_diffusion.cli.program import USER_ERRORS

USAGE = "usage: python -m guided_diffusion.export checkpoint=PATH output=FILE.safetensors [weights=raw]"


@dataclass
class ExportConfig:
    """What ``export`` reads."""

    checkpoint: str = MISSING
    output: str = MISSING
    weights: str = "ema"


def read(arguments: list[str]) -> ExportConfig:
    """The ``key=value`` of the command line.

    Raises:
        ValueError: for a key that is missing or empty; ``OmegaConfBaseException`` for one that does not exist.
    """
    unknown = [argument for argument in arguments if "=" not in argument]
    if unknown:
        raise ValueError(f"{unknown[0]} is no key=value. {USAGE}")
    empty = [argument for argument in arguments if not argument.partition("=")[2]]
    if empty:
        raise ValueError(f"{empty[0]} is empty. {USAGE}")
    config = OmegaConf.merge(OmegaConf.structured(ExportConfig), OmegaConf.from_dotlist(arguments))
    missing = [str(key) for key in config if OmegaConf.is_missing(config, key)]
    if missing:
        raise ValueError(f"{missing[0]} is missing. {USAGE}")
    return ExportConfig(config.checkpoint, config.output, config.weights)


def run(arguments: list[str]) -> None:
    config = read(arguments)
    export(config.checkpoint, config.output, config.weights)
    print(f"The model is in {Path(config.output).absolute()}")


def main() -> None:
    if {"-h", "--help"} & set(sys.argv[1:]):
        print(USAGE)
        return
    try:
        run(sys.argv[1:])
    except USER_ERRORS as error:
        if os.environ.get("HYDRA_FULL_ERROR"):
            raise
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(1)
