"""Continuing from a checkpoint with other settings: more steps, another learning rate, other devices.

No uninterrupted training has this result, so the checkpoints of the new run record the one that it continued from.
"""

import warnings
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf
from pytorch_lightning import Callback, LightningModule, Trainer

from guided_diffusion.training.length import has_epochs
from guided_diffusion.training.lightning_internals import lightning_internals
from guided_diffusion.training.resume.fingerprint import differing_weight_keys, flatten, is_below
from guided_diffusion.training.resume.loop_state import MEANWHILE, rewind_to_step

CONTINUED_FROM = "continued_from.txt"
"""The file, in the folder of a run that continued with other settings, with the checkpoint and the changes."""

CHANGEABLE_KEYS = (
    *("trainer", "module.optimizer", "module.lr_scheduler", "module.compile", "module.channels_last"),
    "data.batch_size",
)
"""The keys of a config whose values may differ from those in the checkpoint that is continued."""
FIXED_KEYS = ("module.optimizer._target_",)
"""The exceptions below these keys: another optimizer can't use the saved state."""
SCHEDULE = "module.lr_scheduler"


def refused_keys(config: dict[str, Any], saved: dict[str, Any]) -> list[str]:
    """Return the keys that differ between a config and that of a checkpoint although they must be equal."""
    keys = differing_weight_keys(config, saved)
    return [key for key in keys if is_below(key, FIXED_KEYS) or not is_below(key, CHANGEABLE_KEYS)]


def origin_of(config: dict[str, Any], checkpoint: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return the path, step and next epoch of a checkpoint, and the settings that ``config`` changes, for the record.

    Args:
        config: The resolved config of the new training.
        content: The content of the checkpoint.

    Raises:
        ValueError: If the checkpoint has already reached the length of the new training.
    """
    saved, step, epoch = content["guided_diffusion"]["config"], content["global_step"], _next_epoch(content)
    trainer = config["trainer"]
    if has_epochs(trainer.get("max_epochs")):
        if trainer["max_epochs"] <= epoch:
            raise ValueError(f"resume: {checkpoint} has trained {epoch} epochs: trainer.max_epochs must be higher")
    elif trainer["max_steps"] <= step:
        raise ValueError(f"resume: {checkpoint} is at step {step}: trainer.max_steps must be higher")
    flat, old = flatten(config), flatten(saved)
    changed = {key: [old.get(key), flat.get(key)] for key in differing_weight_keys(config, saved)}
    others = [values for key, values in changed.items() if not is_below(key, [SCHEDULE])]
    for key in [key for key in changed if is_below(key, [SCHEDULE])]:
        if changed[key] in others:  # such as the schedule's total_steps, which follows trainer.max_steps
            del changed[key]
    return {"checkpoint": str(checkpoint), "step": step, "epoch": epoch, "changed": changed}


def continued_checkpoint(run: Path) -> Path | None:
    """Return the checkpoint that ``continued_from.txt`` in the folder of a run names, if both files are there."""
    note = run / CONTINUED_FROM
    checkpoint = Path(OmegaConf.load(note).checkpoint) if note.is_file() else None
    return checkpoint if checkpoint and checkpoint.is_file() else None


def describe(origin: dict[str, Any], content: dict[str, Any]) -> str:
    """Return a line that says what is carried over from a checkpoint and what is not."""
    average = ", their average" if "averaging_state" in content else ""
    changed = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in origin["changed"].items())
    return (
        f"going on from step {origin['step']} of {origin['checkpoint']} with its weights{average}, optimizer state and "
        f"step count, in a new epoch; changed: {changed}; the result is no longer that of an uninterrupted run"
    )


class NewSettings(Callback):
    """A callback that puts the new settings in the place of those in the checkpoint that is loaded.

    The optimizer keeps its moments and gets the new learning rate and other settings. The learning-rate schedule is the
    new one after the same number of steps. The next epoch begins, and the other callbacks start anew.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["callbacks"] = {}
        with lightning_internals(MEANWHILE):
            loop, step = checkpoint["loops"]["fit_loop"], checkpoint["global_step"]
            trained = loop["epoch_loop.batch_progress"]
            trained["total"] = dict.fromkeys(trained["total"], step * trainer.accumulate_grad_batches)
            if batches := trained["current"]["completed"]:
                rewind_to_step(loop, step, batches, False)  # as if the epoch ended with the last of these batches
        optimizer, schedule = _optimization_after(step, pl_module)
        (saved,) = checkpoint["optimizer_states"]
        for group, new in zip(saved["param_groups"], optimizer.param_groups, strict=True):
            group.update({key: value for key, value in new.items() if key != "params"})
        checkpoint["lr_schedulers"] = [schedule.state_dict()]


def _optimization_after(steps: int, module: LightningModule) -> tuple[Any, Any]:
    """Return a new optimizer of the module, and its learning-rate schedule after this many steps."""
    configured = cast(Any, module.configure_optimizers())
    optimizer, schedule = configured["optimizer"], configured["lr_scheduler"]["scheduler"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch expects a step of the optimizer before each one of the schedule
        for _ in range(steps):
            schedule.step()
    return optimizer, schedule


def _next_epoch(content: dict[str, Any]) -> int:
    """Return the first epoch that begins after a checkpoint."""
    with lightning_internals(MEANWHILE):
        loop = content["loops"]["fit_loop"]
        begun = loop["epoch_loop.batch_progress"]["current"]["completed"] > 0
        return int(loop["epoch_progress"]["current"]["completed"]) + begun
