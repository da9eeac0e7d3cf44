"""Going on from a checkpoint with other settings: more steps, another learning rate, other devices.

The result is that of no uninterrupted training, so its checkpoints record where it began (``CONTINUED_FROM``).
"""

import warnings
from pathlib import Path
from typing import Any, cast

from pytorch_lightning import Callback, LightningModule, Trainer

from guided_diffusion.training.length import has_epochs
from guided_diffusion.training.lightning_internals import lightning_internals
from guided_diffusion.training.resume.fingerprint import differing_weight_keys, flatten, is_below
from guided_diffusion.training.resume.loop_state import MEANWHILE, rewind_to_step

CONTINUED_FROM = "continued_from.txt"
"""The file in the folder of a run that goes on from a checkpoint with other settings; it names both."""

CHANGEABLE_KEYS = (
    *("trainer", "module.optimizer", "module.lr_scheduler", "module.compile", "module.channels_last"),
    "data.batch_size",
)
"""The keys of a config with which a training can go on from a checkpoint that had others."""
FIXED_KEYS = ("module.optimizer._target_",)
"""The keys below those that can't: another optimizer has no use for the state of this one."""
SCHEDULE = "module.lr_scheduler"


def refused_keys(config: dict[str, Any], saved: dict[str, Any]) -> list[str]:
    """Return the keys that differ between a config and that of a checkpoint, and must not."""
    keys = differing_weight_keys(config, saved)
    return [key for key in keys if is_below(key, FIXED_KEYS) or not is_below(key, CHANGEABLE_KEYS)]


def origin_of(config: dict[str, Any], checkpoint: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Return the record of where a training begins that goes on from a checkpoint with other settings.

    Args:
        config: The resolved config of the training.
        content: The content of the checkpoint.

    Raises:
        ValueError: If the training ends where the checkpoint is, or before.
    """
    saved, step, epoch = content["guided_diffusion"]["config"], content["global_step"], _next_epoch(content)
    trainer = config["trainer"]
    if has_epochs(trainer.get("max_epochs")):
        if trainer["max_epochs"] <= epoch:
            raise ValueError(f"resume: {checkpoint} has trained {epoch} epochs: trainer.max_epochs must be larger")
    elif trainer["max_steps"] <= step:
        raise ValueError(f"resume: {checkpoint} is at step {step}: trainer.max_steps must be larger")
    flat, old = flatten(config), flatten(saved)
    changed = {key: [old.get(key), flat.get(key)] for key in differing_weight_keys(config, saved)}
    others = [values for key, values in changed.items() if not is_below(key, [SCHEDULE])]
    changed = {key: value for key, value in changed.items() if not is_below(key, [SCHEDULE]) or value not in others}
    return {"checkpoint": str(checkpoint), "step": step, "epoch": epoch, "changed": changed}


def described(origin: dict[str, Any], content: dict[str, Any]) -> str:
    """Return a line that says what is carried over from a checkpoint and what is not."""
    average = ", their average" if "averaging_state" in content else ""
    changed = ", ".join(f"{key} {old} -> {new}" for key, (old, new) in origin["changed"].items())
    return (
        f"going on from step {origin['step']} of {origin['checkpoint']} with its weights{average}, optimizer state and "
        f"step count, in a new epoch; changed: {changed}; the result is no longer that of an uninterrupted run"
    )


class NewSettings(Callback):
    """A callback that replaces, as a checkpoint is loaded, what the settings of its own training have left in it.

    The optimizer keeps its moments and gets the present learning rate and other settings; the learning rate schedule is
    the present one after as many steps; the next epoch begins; other callbacks start anew.
    """

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        checkpoint["callbacks"] = {}
        with lightning_internals(MEANWHILE):
            loop, step = checkpoint["loops"]["fit_loop"], checkpoint["global_step"]
            if batches := loop["epoch_loop.batch_progress"]["current"]["completed"]:
                rewind_to_step(loop, step, batches, False)  # as if the epoch ended with the last of these batches
        optimizer, schedule = _after(step, pl_module)
        (saved,) = checkpoint["optimizer_states"]
        for group, present in zip(saved["param_groups"], optimizer.param_groups, strict=True):
            group |= {key: value for key, value in present.items() if key != "params"}
        checkpoint["lr_schedulers"] = [schedule.state_dict()]


def _after(steps: int, module: LightningModule) -> tuple[Any, Any]:
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
