"""What a Hydra multirun leaves when it ends: one table, one set of plots and one page of all its jobs."""

from __future__ import annotations

import logging
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

log = logging.getLogger(__name__)


IN_THE_TABLE = frozenset(
    ("guidance", "guidance.scale", "guidance.base", "scales", "sampler", "sampler.steps", "num_samples", "classifier")
)
"""Keys whose values the table of evaluations shows in columns of its own."""


IN_THE_CURVE = frozenset(("guidance.scale", "scales"))
"""The same of the table of trainings."""


@dataclass(frozen=True)
class Job:
    """One job of a sweep."""

    number: int
    folder: Path
    overrides: Sequence[str]

    def option(self, key: str) -> str:
        """What this job has for a key of the command line."""
        return next((value for name, _, value in (one.partition("=") for one in self.overrides) if name == key), "")


@dataclass(frozen=True)
class TrainingCurve:
    """A table across scales that a training leaves."""

    file: str
    column: str
    level: str
    """The column of what real data have."""
    quantity: str
    real: str


CURVES = (
    TrainingCurve("accuracy_by_scale.csv", "accuracy", "judge_ceiling", "judge accuracy", "real test images"),
    TrainingCurve("distance_by_scale.csv", "off_curve", "off_curve_floor", "off the curve", "true points"),
)


class GatherResults(Callback):
    """Gathers what the jobs of a sweep left, when it ends, and says which left nothing.

    Evaluations are gathered into ``results.csv``, ``per_class.csv``, ``plots/`` and ``report.html``; trainings into
    ``accuracy_by_scale.csv`` or, of points, ``distance_by_scale.csv``, its plot and ``report.html``. Columns for what
    the sweep varied follow the usual ones.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        folder = Path(config.hydra.sweep.dir).absolute()
        gather(jobs_of(config), folder, command_of(config))


def jobs_of(config: DictConfig) -> list[Job]:
    """The jobs of a sweep, in the order in which Hydra's own sweeper numbers them."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    overrides = OverridesParser.create().parse_overrides(list(config.hydra.overrides.task))
    folder = Path(config.hydra.sweep.dir)
    (all_jobs,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
    return [Job(number, folder / str(number), job) for number, job in enumerate(all_jobs)]


def command_of(config: DictConfig) -> str:
    """The command that started the sweep."""
    return shlex.join(["python", "-m", f"guided_diffusion.{config.hydra.job.name}", "-m", *config.hydra.overrides.task])


def varied(jobs: Sequence[Job], shown: frozenset[str] = IN_THE_TABLE) -> list[str]:
    """Keys of the command line that differ between jobs, save for those that the table shows anyway."""
    keys = dict.fromkeys(override.partition("=")[0] for job in jobs for override in job.overrides)
    return [key for key in keys if key not in shown and len({job.option(key) for job in jobs}) > 1]


def gather(jobs: Sequence[Job], folder: Path, command: str) -> None:
    """Write what ``GatherResults`` says into ``folder``; nothing if no job left anything."""
    evaluated = [job for job in jobs if (job.folder / "results.csv").is_file()]
    trained = {curve: [job for job in jobs if (job.folder / curve.file).is_file()] for curve in CURVES}
    finished = evaluated or [job for of_curve in trained.values() for job in of_curve]
    failed = [f"{job.number}: {' '.join(job.overrides)}" for job in jobs if job not in finished]
    if finished and failed:
        log.error("these jobs left no results:\n%s", "\n".join(failed))
    if evaluated:
        _gather_evaluations(evaluated, folder, command, failed)
    else:
        for curve, of_curve in trained.items():
            if of_curve:
                _gather_trainings(of_curve, curve, folder, command, failed)


def _gather_evaluations(jobs: Sequence[Job], folder: Path, command: str, failed: Sequence[str]) -> None:
    from dataclasses import replace

    from guided_diffusion.evaluation.report.page import write_report
    from guided_diffusion.evaluation.results import Results, read, save

    keys, found = varied(jobs), [read(job.folder) for job in jobs]
    rows = [
        replace(row, options={key: job.option(key) for key in keys})
        for job, results in zip(jobs, found, strict=True)
        for row in results.rows
    ]
    gathered = Results(rows, {**found[0].about, "failed": list(failed)})
    save(gathered, folder)
    config = OmegaConf.load(jobs[0].folder / "config.yaml")
    page = write_report(gathered, folder, OmegaConf.to_yaml(config), command)
    print(f"\n{len(rows)} rows of {len(jobs)} jobs are in {folder / 'results.csv'}: open {page}")


def _gather_trainings(
    jobs: Sequence[Job], curve: TrainingCurve, folder: Path, command: str, failed: Sequence[str]
) -> None:
    import csv

    from guided_diffusion.evaluation.plots.curves import save_share_plot
    from guided_diffusion.evaluation.report.page import Trainings, write_training_report
    from guided_diffusion.utils.files import atomic_write

    keys, rows = varied(jobs, IN_THE_CURVE), []
    for job in jobs:
        with (job.folder / curve.file).open(newline="") as file:
            rows += [row | {key: job.option(key) for key in keys} for row in csv.DictReader(file)]
    with atomic_write(folder / curve.file) as path, path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        name = ", ".join(f"{key} = {row[key]}" for key in keys) or "samples"
        lines.setdefault(name, []).append((float(row["scale"]), float(row[curve.column])))
    ordered = {name: sorted(set(points)) for name, points in lines.items()}
    picture = (folder / curve.file).with_suffix(".png")
    save_share_plot(ordered, float(rows[0][curve.level]), picture, curve.quantity, curve.real)
    names = varied(jobs, frozenset())
    found = {", ".join(f"{key} = {job.option(key)}" for key in names): _last_grid(job.folder) for job in jobs}
    grids = {name: grid for name, grid in found.items() if grid}
    caption = f"{curve.quantity.capitalize()} against guidance scale. Dashed: {curve.real}."
    config = OmegaConf.to_yaml(OmegaConf.load(jobs[0].folder / "config.yaml"))
    page = write_training_report(Trainings(rows, picture, caption, grids, failed), folder, config, command)
    print(f"\n{len(rows)} rows of {len(jobs)} jobs are in {folder / curve.file}: open {page}")


def _last_grid(run: Path) -> Path | None:
    """The last picture of samples that a training has left."""
    return max(run.glob("samples/step_*.png"), default=None)
