"""Our recipes as contestants: ``conf/experiment/<name>.yaml``, trained as ``python -m guided_diffusion.train`` does.

The whole call counts: reading the data, validation, the checkpoint, and a classifier that its guidance needs.
"""

import logging
import tempfile
import time
import warnings
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import torch

from contestants.base import Calibration, Settings, Trained
from guided_diffusion.checkpoints.files import LAST
from guided_diffusion.cli.config import EvaluateConfig, compose
from guided_diffusion.cli.experiments import drop_unused_settings
from guided_diffusion.cli.guide import with_guide
from guided_diffusion.cli.restore import prepare
from guided_diffusion.cli.train import train
from guided_diffusion.data import ImageDataModule
from guided_diffusion.utils.overrides import hydra_override

WARMUP_STEPS, FEW_STEPS, MORE_STEPS = 4, 10, 60
"""The lengths of the trainings by which calibration tells the time of a step from the rest."""


@dataclass(frozen=True)
class Ours:
    """The training of an experiment with another number of steps, without pictures in between."""

    experiment: str

    def calibrate(self, data: ImageDataModule, settings: Settings) -> Calibration:
        """Return the times of a step and of the rest, from two short trainings."""
        free = Calibration(0.0, 0.0, autocast=False, channels_last=False)
        self.train(data, settings, WARMUP_STEPS, free)
        few, more = (self.train(data, settings, steps, free) for steps in (FEW_STEPS, MORE_STEPS))
        per_step = (more.seconds - few.seconds) / (MORE_STEPS - FEW_STEPS)
        per_step = max(per_step, more.seconds / MORE_STEPS / 100)  # the difference of short times may be noise
        return Calibration(per_step, max(0.0, few.seconds - FEW_STEPS * per_step), more.autocast, channels_last=False)

    def train(self, data: ImageDataModule, settings: Settings, steps: int, calibration: Calibration) -> Trained:
        """Train, and draw one sample, because a classifier may be trained only when a sample needs it."""
        logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            start = time.process_time()
            overrides = self.overrides(settings, steps, Path(folder) / "run")
            config = compose(*overrides)
            drop_unused_settings(config, overrides)
            run_dir = train(config)
            sampling = [
                hydra_override("checkpoint", str(run_dir / LAST)),
                hydra_override("output_dir", str(Path(folder) / "samples")),
            ]
            sampling_config = compose(*sampling, program="evaluate")
            model, recipe = prepare(sampling_config, sampling, EvaluateConfig)
            recipe = with_guide(sampling_config, model, recipe, lambda: data)
            guided = float(torch.as_tensor(recipe.guidance.scale))
            trained = Trained(
                denoiser=model.denoiser,
                recipe=recipe,
                scales=sorted({1.0, guided}),
                seconds=0.0,
                steps=steps,
                batch_size=config.data.batch_size,
                autocast="bf16" in str(config.trainer.precision),
            )
            trained.sample(torch.zeros(1, dtype=torch.long), data.shape, guided, settings.seed)
            return replace(trained, seconds=time.process_time() - start)

    def overrides(self, settings: Settings, steps: int, output_dir: Path) -> list[str]:
        """Return the overrides of the training."""
        return [
            f"+experiment={self.experiment}",
            *("callbacks=minimal", "~callbacks.progress", "+trainer.enable_progress_bar=false"),
            f"trainer.max_steps={steps}",
            f"trainer.val_check_interval={steps}",
            f"seed={settings.seed}",
            hydra_override("output_dir", str(output_dir)),
            *settings.overrides,
        ]
