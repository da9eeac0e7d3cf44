"""Drawing the samples of an evaluation in chunks, on any number of devices, each chunk saved as a file.

The samples of all scales form one list, scale after scale, which is cut into chunks of ``recipe.batch_size``. Because
finished chunks are files, an interrupted evaluation continues where it stopped. The samples in a chunk depend neither
on the number of devices nor on which chunks exist already.
"""

import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import Any, cast

import torch
from jaxtyping import Float
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ProgressBar
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from guided_diffusion.denoisers import Denoise, Denoiser, Labels, Prediction
from guided_diffusion.evaluation.effective_scale import EffectiveScale, ScaleMeter, mean_of
from guided_diffusion.evaluation.plan import LabelledSamples, Plan
from guided_diffusion.guidance import Wrapper, per_evaluation
from guided_diffusion.recipe import Recipe, Start
from guided_diffusion.schedules import Schedule
from guided_diffusion.utils.distributed import rank, rank_zero_print
from guided_diffusion.utils.files import load_tensors, save_tensors
from guided_diffusion.utils.locks import file_lock
from guided_diffusion.utils.progress import progress_bar


@dataclass(frozen=True)
class Watched:
    """A threshold that also passes its input, the guided prediction before clamping, to ``watch``."""

    threshold: Wrapper
    watch: Callable[[Prediction], None]

    def __call__(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        return self.threshold(self._observed(denoise, schedule), schedule)

    @per_evaluation
    def _observed(self, denoise: Denoise, schedule: Schedule) -> Denoise:
        def observed(x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
            prediction = denoise(x_t, t, y)
            self.watch(prediction)
            return prediction

        return observed


class Chunks(LightningModule):
    """A module that samples chunks and saves each as a file: ``trainer.predict(Chunks(...), chunk_numbers)``.

    ``start`` is the start of the samples of one scale, by default pure noise. With ``measures_scale`` the effective
    scale of each sample is measured too.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        recipe: Recipe,
        plan: Plan,
        folder: Path,
        start: Start | None = None,
        measures_scale: bool = False,
    ) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.recipe = recipe
        self.plan = plan
        self.folder = folder
        self.start = start
        self.measures_scale = measures_scale
        self.after_step: Callable[[int], None] = _nothing
        """A function that gets the number of the chunk after each of its steps."""
        self.costs: Sequence[float] = [1.0] * len(plan.scales)
        """The cost of a sample at each scale, in any unit, for the estimate of the time that is left."""

    def cost(self, chunk: int) -> float:
        """Return the cost of a chunk, the sum over its samples."""
        costs = torch.tensor(self.costs, dtype=torch.float64)
        return float(costs[self.plan.rows(chunk) // self.plan.per_scale].sum())

    def missing(self) -> list[int]:
        """Return the numbers of the chunks that have no file yet."""
        return [chunk for chunk in range(len(self.plan)) if not self._path(chunk).is_file()]

    def setup(self, stage: str) -> None:
        self._sigterm_handler = signal.getsignal(signal.SIGTERM)

    def on_predict_start(self) -> None:
        """Restore the SIGTERM handler: Lightning's would first notify the other processes, which may not respond."""
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._sigterm_handler)

    def predict_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        for chunk in batch.tolist():
            self._sample(chunk)
        return batch

    def _sample(self, chunk: int) -> None:
        rows = self.plan.rows(chunk)
        indices = rows % self.plan.per_scale
        saturations: list[Tensor] = []
        scales_found: list[EffectiveScale] = []
        threshold = self.recipe.threshold
        if self.measures_scale:
            threshold = ScaleMeter(threshold, self.denoiser, scales_found.append)
        watched = Watched(threshold, lambda prediction: saturations.append(saturation(prediction.x0)))
        start = perf_counter()
        labels, scales = self.plan.labels[indices], self.plan.scales_of(rows)
        samples = replace(self.recipe, threshold=watched).sample(
            self.denoiser,
            labels,
            self.plan.shape,
            indices.tolist(),
            scales,
            self.plan.seed,
            self.start[indices] if self.start else None,
            lambda: self.after_step(chunk),
        )
        content = {"images": samples, "saturation": saturations[-1].cpu(), "seconds": perf_counter() - start}
        if self.measures_scale:
            content["guidance"] = torch.stack(mean_of(scales_found), 1)
        save_tensors(content, self._path(chunk))

    def _path(self, chunk: int) -> Path:
        return self.folder / f"chunk_{chunk:05d}.pt"

    def collect(self, costs: Sequence[float]) -> tuple[list[LabelledSamples], list[float]]:
        """Return the samples of each scale and the seconds that they took.

        The seconds of a chunk are divided among its samples by ``costs``, the cost of a sample at each scale.
        """
        chunks = [_read(self._path(chunk)) for chunk in range(len(self.plan))]
        per_scale, labels = self.plan.per_scale, self.plan.labels
        samples, saturations = (torch.cat([chunk[name] for chunk in chunks]) for name in ("images", "saturation"))
        guidance = torch.cat([chunk["guidance"] for chunk in chunks]) if self.measures_scale else None
        cost = torch.tensor(costs, dtype=torch.float64).repeat_interleave(per_scale)
        shares = (cost[self.plan.rows(number)] for number in range(len(chunks)))
        seconds = torch.cat(
            [share / share.sum() * chunk["seconds"] for share, chunk in zip(shares, chunks, strict=True)]
        )
        drawn = [
            LabelledSamples(
                samples[rows],
                labels,
                saturations[rows],
                self.plan.num_extra,
                None if guidance is None else guidance[rows],
            )
            for rows in torch.arange(len(samples)).split(per_scale)
        ]
        return drawn, [float(part.sum()) for part in seconds.split(per_scale)]


def _nothing(chunk: int) -> None:
    """Do nothing after a step."""


def _read(path: Path) -> dict[str, Any]:
    try:
        return load_tensors(path)
    except ValueError as error:
        raise ValueError(f"{error}: delete it to draw its samples again") from error


class EvaluationProgress(ProgressBar):
    """A progress bar that counts network evaluations on all devices: these take equal time, while samples do not.

    The bar appears after ``quiet_seconds``.
    """

    _bar: tqdm

    def __init__(self, quiet_seconds: float = 0) -> None:
        super().__init__()
        self.quiet_seconds = quiet_seconds

    def disable(self) -> None:
        """Do nothing: only the first process shows the bar anyway."""

    def on_predict_start(self, trainer: Trainer, pl_module: Any) -> None:
        share = trainer.world_size / pl_module.recipe.sampler.steps
        pl_module.after_step = lambda chunk: self._advance(pl_module.cost(chunk) * share)
        self._advanced = 0.0
        self._bar = progress_bar(
            desc="sampling",
            total=round(sum(map(pl_module.cost, pl_module.missing()))),
            unit="eval",
            unit_scale=True,
            delay=self.quiet_seconds,
            disable=not trainer.is_global_zero,
        )

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self._advance(round(sum(map(pl_module.cost, batch.tolist()))) * trainer.world_size - self._advanced)
        self._advanced = 0.0

    def _advance(self, evaluations: float) -> None:
        self._advanced += evaluations
        self._bar.update(evaluations)

    def on_predict_end(self, trainer: Trainer, pl_module: Any) -> None:
        self._bar.close()


def draw(trainer: Trainer, chunks: Chunks) -> None:
    """Sample the missing chunks on all devices of the trainer."""
    missing = chunks.missing()
    if present := len(chunks.plan) - len(missing):
        rank_zero_print(f"{present} of {len(chunks.plan)} chunks of samples are there from before")
    if missing:
        trainer.predict(chunks, DataLoader(cast(Any, missing)), return_predictions=False)
    trainer.strategy.barrier()


def sampling_lock(folder: Path) -> AbstractContextManager[None]:
    """Return a lock on the samples of this folder: other evaluations wait for it, in their first process only."""
    if rank():
        return nullcontext()
    return file_lock(folder.with_suffix(".lock"), "another evaluation is drawing the same samples")


def saturation(x0: Float[Tensor, "b *shape"]) -> Float[Tensor, " b"]:
    """Return the share of each sample's values that lie outside [-1, 1]."""
    return (x0.abs() > 1).float().flatten(1).mean(1)
