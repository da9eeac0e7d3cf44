"""Chooses the folder of a sweep once, in the process that starts it, for all of its jobs; checks that of a run."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from guided_diffusion.cli.config import CONFIG_PATH, is_overridden
from guided_diffusion.utils.overrides import hydra_override

NAMING = ("name", "experiment")
"""The keys that change the name of a training, which is part of the folder of its sweep."""


class JobError(BaseException):
    """A wrapper of the error of a job or a callback, which is its cause. Hydra would print or drop an ``Exception``."""


@contextmanager
def carried_past_hydra() -> Iterator[None]:
    """Raise any ``Exception`` of the block as the cause of a ``JobError``."""
    try:
        yield
    except Exception as error:
        raise JobError from error


def fix_sweep_folder(config: DictConfig) -> None:
    """Write the folder of a sweep, an absolute path, into the config and into the overrides of each of its jobs.

    Hydra would resolve ``hydra.sweep.dir`` again in each job, where ``${name}`` may be another one. The folder is
    ``output_dir`` if the user sets it, else ``hydra.sweep.dir``. If the sweep varies the name or the experiment,
    ``${name}`` in it is all of their values, with a plus between them.

    Args:
        config: The config of the process that starts the sweep, in which swept keys have their default values.

    Raises:
        ValueError: If ``output_dir`` is swept, is empty, or is set beside ``hydra.sweep.dir``.
    """
    hydra, overrides = config.hydra, _overrides_by_key(config)
    if names := [name for key in NAMING if key in overrides for name in _swept_values(overrides[key])]:
        OmegaConf.update(config, "name", "+".join(dict.fromkeys(names)), force_add=True)
    output_dir = _output_dir(config, overrides.get("output_dir"))
    folder = hydra.sweep.dir if output_dir is None else output_dir
    if not folder:
        raise ValueError("output_dir is empty: name a folder, or . for this one")
    check_folder_name(folder)
    hydra.sweep.dir = str(Path(folder).absolute())
    hydra.overrides.hydra.append(hydra_override("hydra.sweep.dir", hydra.sweep.dir))


def check_one_folder(config: DictConfig) -> None:
    """Raise ``ValueError`` if the command line names two folders of a run, of which ``output_dir`` would be ignored.

    A process that Lightning has started gets the folder of the first one beside the command line.
    """
    hydra = config.hydra
    is_first = not int(os.environ.get("LOCAL_RANK", "0"))
    names_both = is_overridden(hydra.overrides.hydra, "hydra.run.dir") and is_overridden(
        hydra.overrides.task, "output_dir"
    )
    if is_first and names_both and Path(config.output_dir).absolute() != Path(hydra.run.dir).absolute():
        raise ValueError("output_dir and hydra.run.dir both name the folder of the run: leave one out")


def check_folder_name(folder: str | None) -> None:
    """Raise ``ValueError`` for a folder with ``${`` in its path, which Hydra would read as an interpolation."""
    if folder and "${" in str(Path(folder).absolute()):
        raise ValueError(f"output_dir: {Path(folder).absolute()} has ${{ in its name, which Hydra can't use: rename it")


def _overrides_by_key(config: DictConfig) -> dict[str, Override]:
    """Return the last override of each key of a sweep, also those in ``hydra.sweeper.params``."""
    params = config.hydra.sweeper.get("params") or {}
    texts = [*(f"{key}={value}" for key, value in params.items()), *config.hydra.overrides.task]
    return {one.key_or_group: one for one in OverridesParser.create().parse_overrides(texts)}


def _swept_values(override: Override) -> list[str]:
    """Return the values that a sweep gives a key, as parts of a folder's name; none if it gives only one."""
    if not override.is_discrete_sweep():
        return []
    return [value.strip("\"'").replace("/", "_") for value in override.sweep_string_iterator()]


def _output_dir(config: DictConfig, override: Override | None) -> str | None:
    """Return ``output_dir`` if the command line or an experiment sets it, else ``None``."""
    if override is not None:
        if override.is_sweep_override():
            raise ValueError(
                "output_dir: the jobs of a sweep have folders 0, 1, ... in one output_dir: name one, or sweep over name"
            )
        config.output_dir = override.value()
    chosen = _unresolved(config).get("output_dir")
    if chosen == _unresolved(OmegaConf.load(Path(CONFIG_PATH) / f"{config.hydra.job.name}.yaml")).get("output_dir"):
        return None
    if any(one.startswith("hydra.sweep.dir=") for one in config.hydra.overrides.hydra):
        raise ValueError("output_dir and hydra.sweep.dir both name the folder of the sweep: leave one out")
    return config.output_dir


def _unresolved(config: Any) -> dict[str, Any]:
    return cast(dict[str, Any], OmegaConf.to_container(config))
