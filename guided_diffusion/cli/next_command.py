"""The commands that a training prints: how to go on with it if it stopped, and how to sample with its model."""

import shlex
from pathlib import Path
from typing import Any

from pytorch_lightning.utilities import rank_zero_only

from guided_diffusion.checkpoints.files import LAST
from guided_diffusion.cli.config import in_sweep
from guided_diffusion.cli.provenance import command
from guided_diffusion.utils.overrides import hydra_override, names_run, shell_override

BEST = LAST.with_name("best.ckpt")
"""The path of the best checkpoint, relative to the folder of its training."""


def command_to_resume(folder: Path) -> str:
    """Return the command that resumes this training; it names the folder in a sweep, or if it was named already."""
    parts = shlex.split(command())
    others = [part for part in parts if not part.lstrip("+").startswith("resume=")]
    return shlex.join([*others, hydra_override("resume", folder if names_run(parts) or in_sweep() else "auto")])


@rank_zero_only
def print_next_command(output_dir: Path, kind: str, settings: dict[str, Any]) -> None:
    """Print where a run is, and the command that samples with its model, if it has saved one.

    Args:
        output_dir: The folder of the run.
        kind: The kind of its model, ``diffusion`` or ``classifier``.
        settings: The resolved config.
    """
    print(f"\nEverything of this run is in {output_dir}")
    checkpoint = next((path for name in (LAST, BEST) if (path := output_dir / name).is_file()), None)
    if checkpoint is None:
        return
    if kind == "diffusion":
        scales = settings["scales"]
        scale = 3 if 3 in scales else scales[-1]
        next_step = f"{shell_override('checkpoint', checkpoint)} guidance.scale={scale:g}"
    else:
        guided_by = shell_override("guidance.classifier", checkpoint)
        next_step = f"checkpoint=DIFFUSION guidance=classifier {guided_by} compare=true"
    packages = _own_packages(settings)
    trusted = f" trusted=[{','.join(packages)}]" if packages else ""
    print(f"Next: python -m guided_diffusion.sample {next_step}{trusted}")


def _own_packages(settings: dict[str, Any]) -> list[str]:
    """Return the packages, other than this one, whose classes the model and its data are made of."""
    targets = (settings[part].get("_target_", "") for part in ("network", "schedule", "data"))
    return sorted({target.partition(".")[0] for target in targets} - {"guided_diffusion"})
