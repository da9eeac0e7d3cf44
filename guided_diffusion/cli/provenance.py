"""The record of a run that lets it be repeated: ``environment.json`` and ``reproduce.sh`` in its folder."""

import json
import platform
import shlex
import subprocess
import sys
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser

import guided_diffusion
from guided_diffusion.cli.config import in_sweep
from guided_diffusion.utils.overrides import hydra_override

PACKAGES = ("torch", "torchvision", "pytorch-lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy")


def command() -> str:
    """Return the command that started this program, or this one job of a sweep, to be pasted into a shell."""
    if in_sweep():  # maybe in a launcher's process
        return shlex.join(["python", "-m", f"guided_diffusion.{HydraConfig.get().job.name}", *_overrides_of_job()])
    module = Path(sys.argv[0]).stem
    start = ["python", "-m", f"guided_diffusion.{module}"] if sys.argv[0].endswith(".py") else [module]
    return shlex.join([*start, *sys.argv[1:]])


def _overrides_of_job() -> list[str]:
    """Return the arguments that run this job without its sweep: in its folder, if the sweep has an ``output_dir``."""
    hydra, parser = HydraConfig.get(), OverridesParser.create()
    task = [text for text in hydra.overrides.task if parser.parse_override(text).key_or_group != "output_dir"]
    folder = [hydra_override("output_dir", hydra.runtime.output_dir)] * (len(task) < len(hydra.overrides.task))
    search = [text for text in hydra.overrides.hydra if text.startswith("hydra.searchpath=")]
    own = [source.path for source in hydra.runtime.config_sources if source.provider == "command-line"]
    return [*(part for path in own for part in ("--config-dir", path)), *search, *task, *folder]


def write_record(output_dir: Path, seed: int, device: str) -> None:
    """Write ``environment.json`` and ``reproduce.sh`` into a folder, for a run on a ``device`` such as ``cuda``."""
    found = environment(seed, device)
    (output_dir / "environment.json").write_text(json.dumps(found, indent=2) + "\n")
    script = output_dir / "reproduce.sh"
    script.write_text(reproduce(command(), found), encoding="utf-8")
    script.chmod(0o755)


def environment(seed: int, device: str) -> dict[str, Any]:
    """Return the versions, the hardware, the state of the checkout and the time, as plain data."""
    return {
        "guided_diffusion": guided_diffusion.__version__,
        "git": git_state(Path(guided_diffusion.__file__).parent),
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": platform.platform(),
        "device": torch.cuda.get_device_name() if device.startswith("cuda") else platform.processor() or device,
        "threads": torch.get_num_threads(),
        "seed": seed,
        "started_at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "folder": str(Path.cwd()),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return the commit of the checkout with this package and whether files differ from it, or ``None`` without one.

    A package installed inside the checkout of another project, which ignores it, has no checkout.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None or not _git(folder, "ls-files", "__init__.py"):
        return None
    return {"commit": commit, "dirty": bool(_git(folder, "status", "--porcelain", "--untracked-files=no"))}


def _git(folder: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def reproduce(started_with: str, found: dict[str, Any]) -> str:
    """Return a shell script that runs a shell-quoted command again, with its environment ``found`` in comments.

    The script leaves out the folder of the run, which must not be overwritten.
    """
    git = found["git"]
    versions = ", ".join(f"{name} {number}" for name, number in found["packages"].items())
    commit = f"git checkout {git['commit']}" if git else f"guided_diffusion {found['guided_diffusion']}, no checkout"
    dirty = ["# Files differed from that commit: the same result is not certain."] if git and git["dirty"] else []
    folders = ("output_dir=", "hydra.run.dir=", "hydra.sweep.dir=", "hydra.sweep.subdir=")
    again = shlex.join(part for part in shlex.split(started_with) if not part.lstrip("+").startswith(folders))
    lines = [
        "#!/bin/sh",
        f"# {commit}",
        *dirty,
        f"# Python {found['python']}, {versions}",
        f"# {found['platform']}, {found['device']}, {found['threads']} threads",
        f"# cd {shlex.quote(found['folder'])}",
        "# More overrides may follow: ./reproduce.sh hydra.run.dir=again",
        f'exec {again} "$@"',
    ]
    return "\n".join(lines) + "\n"
