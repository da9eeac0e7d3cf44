"""Exports a model as one safetensors file: what ``python -m guided_diffusion.export`` does.

Such a file holds one set of weights and, as JSON, the record from which ``load`` rebuilds the model. It is read
without pickle, by other programs as well. It has no state of the optimizer: training can't go on from it.
"""

from pathlib import Path

from omegaconf import DictConfig

from guided_diffusion.checkpoints.files import export
from guided_diffusion.utils.files import check_writable


def run(config: DictConfig) -> None:
    for key, example in {"checkpoint": "PATH", "output": "FILE.safetensors"}.items():
        if not config[key]:
            raise ValueError(f"{key} is {'missing' if config[key] is None else 'empty'}: add {key}={example}")
    check_writable(Path(config.output).parent, "output")
    export(config.checkpoint, config.output, config.weights)
    print(f"The model is in {Path(config.output).absolute()}")
