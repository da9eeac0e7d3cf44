"""LabelledSamples for an evaluation: every scale in the same batches, on any number of devices, kept as they come.

All samples of all scales form one list, scale after scale, which is cut into chunks of ``recipe.batch_size``. A
chunk that was sampled is a file, so an interrupted evaluation goes on where it was; what is in a chunk depends
neither on the number of devices nor on what was there before.
"""

from __future__ import annotations

import pickle
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from guided_diffusion.denoisers import Denoise, Denoiser, Labels, Prediction
from guided_diffusion.evaluation.metrics.images import LabelledSamples
from guided_diffusion.evaluation.plan import Plan
from guided_diffusion.guidance import Wrapper
from guided_diffusion.recipe import Recipe
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.distributed import rank
from guided_diffusion.utils.files import atomic_write
from guided_diffusion.utils.locks import file_lock


@dataclass(frozen=True)
class Watched:
    """A threshold whose input is shown to ``watch``: the guided prediction before anything is clamped."""

    threshold: Wrapper
    watch: Callable[[Prediction], None]

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        def shown(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            prediction = denoise(x_t, t, y)
            self.watch(prediction)
            return prediction

        return self.threshold(shown, schedule)


class Chunks(LightningModule):
    """LabelledSamples chunks and keeps each as a file: ``trainer.predict(Chunks(...), numbers of chunks)``.

    Args:
        denoiser: the trained model.
        recipe: how samples are made.
        plan: which.
        folder: of the files.
    """

    def __init__(self, denoiser: Denoiser, recipe: Recipe, plan: Plan, folder: Path) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.recipe = recipe
        self.plan = plan
        self.folder = folder
        self.costs: Sequence[float] = [1.0] * len(plan.scales)
        """What a sample costs at each scale, in any unit, for the estimate of the time that is left."""

    def cost(self, chunk: int) -> float:
        """Of a whole chunk."""
        costs = torch.tensor(self.costs, dtype=torch.float64)
        return float(costs[self.plan.rows(chunk) // self.plan.per_scale].sum())

    def missing(self) -> list[int]:
        """Numbers of the chunks that are not there yet."""
        return [chunk for chunk in range(len(self.plan)) if not self._path(chunk).is_file()]

    def setup(self, stage: str) -> None:
        self._at_sigterm = signal.getsignal(signal.SIGTERM)

    def on_predict_start(self) -> None:
        """Let SIGTERM do what it did before: Lightning would first tell the other processes, which may not listen."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._at_sigterm)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        for chunk in batch.tolist():
            self._sample(chunk)
        return batch

    def _sample(self, chunk: int) -> None:
        rows = self.plan.rows(chunk)
        indices = rows % self.plan.per_scale
        saturated = []
        watched = Watched(self.recipe.threshold, lambda prediction: saturated.append(saturation(prediction.x0)))
        recipe = replace(self.recipe, threshold=watched)
        start = perf_counter()
        images = recipe.sample(
            self.denoiser,
            self.plan.labels[indices],
            self.plan.shape,
            indices.tolist(),
            self.plan.scales_of(rows),
            self.plan.seed,
        )
        content = {"images": images, "saturation": saturated[-1].cpu(), "seconds": perf_counter() - start}
        with atomic_write(self._path(chunk)) as path:
            torch.save(content, path)

    def _path(self, chunk: int) -> Path:
        return self.folder / f"chunk_{chunk:05d}.pt"

    def collect(self, evaluations: Sequence[float]) -> tuple[list[LabelledSamples], list[float]]:
        """The samples of each scale, and seconds: those of a chunk shared by what each of its samples costs."""
        chunks = [_read(self._path(chunk)) for chunk in range(len(self.plan))]
        images, saturated = (torch.cat([chunk[name] for chunk in chunks]) for name in ("images", "saturation"))
        cost = torch.tensor(evaluations, dtype=torch.float64).repeat_interleave(self.plan.per_scale)
        seconds = torch.cat(
            [
                cost[self.plan.rows(number)] / cost[self.plan.rows(number)].sum() * chunk["seconds"]
                for number, chunk in enumerate(chunks)
            ]
        )
        samples = [
            LabelledSamples(image, self.plan.labels, share)
            for image, share in zip(
                images.split(self.plan.per_scale), saturated.split(self.plan.per_scale), strict=True
            )
        ]
        return samples, [float(part.sum()) for part in seconds.split(self.plan.per_scale)]


def _read(path: Path) -> dict[str, Any]:
    try:
        return torch.load(path, weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged, or holds code: delete it, and its samples are drawn anew") from error


class EvaluationProgress(ProgressBar):
    """Evaluations of the network done and to do, over all devices: they take equal time, as scales do not.

    Args:
        quiet_seconds: of waiting before it appears.
    """

    def __init__(self, quiet_seconds: float = 0) -> None:
        super().__init__()
        self.quiet_seconds = quiet_seconds
        self._bar: tqdm | None = None

    def disable(self) -> None:
        """Nothing to switch off: the bar is for the first process alone."""

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        self._bar = tqdm(
            total=round(sum(map(pl_module.cost, pl_module.missing()))),
            desc="sampling",
            unit="eval",
            unit_scale=True,
            disable=not trainer.is_global_zero,
            delay=self.quiet_seconds,
            dynamic_ncols=True,
            file=sys.stderr,
            mininterval=0.5 if sys.stderr.isatty() else 10,
        )

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        assert self._bar is not None
        self._bar.update(round(sum(map(pl_module.cost, batch.tolist()))) * trainer.world_size)

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        assert self._bar is not None
        self._bar.close()


def draw(trainer: Trainer, chunks: Chunks) -> None:
    """Sample the chunks that are missing, on all devices of the trainer."""
    missing = chunks.missing()
    if len(missing) < len(chunks.plan):
        there = len(chunks.plan) - len(missing)
        rank_zero_only(print)(f"{there} of {len(chunks.plan)} chunks of samples are there from before")
    if missing:
        trainer.predict(chunks, DataLoader(cast(Any, missing)), return_predictions=False)
    trainer.strategy.barrier()


@contextmanager
def sampling_lock(folder: Path) -> Iterator[None]:
    """Of evaluations of the very same samples one at a time draws them; its first process waits for the others."""
    if rank():
        yield
        return
    with file_lock(folder.with_suffix(".lock"), "another evaluation draws the same samples"):
        yield


def saturation(x0: Float[Tensor, "b *shape"]) -> Float[Tensor, " b"]:
    """The share of each sample's numbers that lie outside [-1, 1]."""
    return (x0.abs() > 1).float().flatten(1).mean(1)
