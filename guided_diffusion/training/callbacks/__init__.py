"""The Lightning callbacks of a training. All are optional, and without them the trained weights are the same."""

from guided_diffusion.training.callbacks.accuracy_by_noise import AccuracyByNoise
from guided_diffusion.training.callbacks.by_scale import MeasureByScale
from guided_diffusion.training.callbacks.ema import EMA
from guided_diffusion.training.callbacks.learning_rate import LearningRate
from guided_diffusion.training.callbacks.progress import StepProgress
from guided_diffusion.training.callbacks.sample_grid import SampleGrid
from guided_diffusion.training.callbacks.terminate_on_nan import TerminateOnNonFinite
from guided_diffusion.training.callbacks.throughput import ImagesPerSecond
from guided_diffusion.training.resume.last_checkpoint import LastCheckpoint
from guided_diffusion.training.resume.loop_state import Resumable

AccuracyByScale = DistanceByScale = MeasureByScale
ScatterGrid = SampleGrid
"""Earlier names, for the recorded configs of older runs."""

__all__ = [
    "EMA",
    "AccuracyByNoise",
    "ImagesPerSecond",
    "LastCheckpoint",
    "LearningRate",
    "MeasureByScale",
    "Resumable",
    "SampleGrid",
    "StepProgress",
    "TerminateOnNonFinite",
]
