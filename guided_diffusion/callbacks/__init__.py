"""Lightning callbacks. All are optional: without them the weights are the same."""

from guided_diffusion.callbacks.accuracy_by_noise import AccuracyByNoise
from guided_diffusion.callbacks.accuracy_by_scale import AccuracyByScale
from guided_diffusion.callbacks.checkpoints import LastCheckpoint
from guided_diffusion.callbacks.distance_by_scale import DistanceByScale
from guided_diffusion.callbacks.ema import EMA
from guided_diffusion.callbacks.finite import StopWhereNotFinite
from guided_diffusion.callbacks.progress import StepProgress
from guided_diffusion.callbacks.resumable import Resumable
from guided_diffusion.callbacks.sample_grid import SampleGrid
from guided_diffusion.callbacks.scatter_grid import ScatterGrid
from guided_diffusion.callbacks.throughput import ImagesPerSecond

__all__ = [
    "EMA",
    "AccuracyByNoise",
    "AccuracyByScale",
    "DistanceByScale",
    "ImagesPerSecond",
    "LastCheckpoint",
    "Resumable",
    "SampleGrid",
    "ScatterGrid",
    "StepProgress",
    "StopWhereNotFinite",
]
