"""Gathers the results of all jobs when a sweep ends: in one table, one set of plots and one page."""

import csv
import logging
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from guided_diffusion.cli.output_folders import job_records
from guided_diffusion.cli.sweep_folder import carried_past_hydra

if TYPE_CHECKING:
    from guided_diffusion.evaluation.results import Results

log = logging.getLogger(__name__)

EVALUATION_COLUMNS = frozenset(
    ("guidance", "guidance.scale", "guidance.base", "scales", "sampler", "sampler.steps", "num_samples", "classifier")
)
"""The keys whose values the table of evaluations shows in columns of its own."""
TRAINING_COLUMNS = frozenset(("guidance.scale", "scales"))
"""The keys whose values the table of trainings shows in columns of its own."""


@dataclass(frozen=True)
class Job:
    """One job of a sweep."""

    number: int
    folder: Path
    overrides: Sequence[str]
    finished: bool = True
    skipped: str = ""
    """Why it was left out, if it was."""

    @property
    def options(self) -> dict[str, str]:
        """The values that the command line gives to keys in this job, without their quotes."""
        split = (one.lstrip("+~").partition("=") for one in self.overrides)
        return {key: value.strip("\"'") for key, _, value in split}

    def option(self, key: str) -> str:
        """Return the value that the command line gives a key in this job, or an empty string."""
        return self.options.get(key, "")


@dataclass(frozen=True)
class TrainingCurve:
    """A table, which a training leaves, of a quantity at each guidance scale."""

    file: str
    column: str
    level: str  # the column with the value of real data
    quantity: str
    real: str
    kind: str  # of the data


CURVES = (
    TrainingCurve("accuracy_by_scale.csv", "accuracy", "judge_ceiling", "judge accuracy", "real test images", "images"),
    TrainingCurve("distance_by_scale.csv", "off_curve", "off_curve_floor", "off the curve", "true points", "points"),
)


class GatherResults(Callback):
    """A Hydra callback that gathers the results of the jobs when a sweep ends, and logs which jobs have none.

    Evaluations are gathered into ``results.csv``, ``per_class.csv``, ``plots/`` and ``report.html``; trainings into
    ``accuracy_by_scale.csv`` or, for points, ``distance_by_scale.csv``, its plot and ``report.html``. Columns for what
    the sweep varied follow the usual ones.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        hydra = config.hydra
        folder = Path(hydra.sweep.dir).absolute()
        jobs = [
            Job(number, Path(job["folder"]), job["overrides"], job["finished"], job["skipped"])
            for number, job in job_records(folder).items()
        ]
        command = ["python", "-m", f"guided_diffusion.{hydra.job.name}", "-m", *hydra.overrides.task]
        with carried_past_hydra():
            gather(jobs, folder, shlex.join(command))


def varied(jobs: Sequence[Job], shown: frozenset[str] = EVALUATION_COLUMNS) -> list[str]:
    """Return the keys of the command line whose values differ between jobs, except those in ``shown``."""
    keys = dict.fromkeys(key for job in jobs for key in job.options)
    return [key for key in keys if key not in shown and len({job.option(key) for job in jobs}) > 1]


def gather(jobs: Sequence[Job], folder: Path, command: str) -> None:
    """Write the results of all finished jobs into ``folder``, as ``GatherResults`` says, if there are any.

    If the jobs have results of images and of points, each kind has a folder of its own in ``folder``.
    """
    finished = [job for job in jobs if job.finished]
    skipped = [job.skipped for job in jobs if job.skipped]
    failed = [f"{job.number}: {' '.join(job.overrides)}" for job in jobs if not job.finished and not job.skipped]
    if finished and failed:
        log.error("these jobs failed:\n%s", "\n".join(failed))
    evaluated = _evaluations(finished)
    trained = {curve: [job for job in finished if (job.folder / curve.file).is_file()] for curve in CURVES}
    trained = {curve: with_curve for curve, with_curve in trained.items() if with_curve}
    if evaluated:
        for kind, results in evaluated.items():
            where = folder if len(evaluated) == 1 else folder / kind
            _gather_evaluations(results, varied(jobs), where, command, {"failed": failed, "skipped": skipped})
        if skipped:
            print("\n".join(["left out, because they don't suit the model:", *skipped]))
        return
    for curve, with_curve in trained.items():
        where = folder if len(trained) == 1 else folder / curve.kind
        _gather_trainings(with_curve, varied(jobs, TRAINING_COLUMNS), curve, where, command, failed)


def _evaluations(jobs: Sequence[Job]) -> dict[str, list[tuple[Job, "Results"]]]:
    """Return the jobs with a table of an evaluation, and the results in it, for each kind of data."""
    found: dict[str, list[tuple[Job, Results]]] = defaultdict(list)
    for job in jobs:
        if (job.folder / "results.csv").is_file():
            from guided_diffusion.evaluation.results import read

            results = read(job.folder)
            found[results.kind].append((job, results))
    return found


def _gather_evaluations(
    evaluated: Sequence[tuple[Job, "Results"]],
    keys: Sequence[str],
    folder: Path,
    command: str,
    without_results: Mapping[str, list[str]],
) -> None:
    from guided_diffusion.evaluation.report.page import write_report
    from guided_diffusion.evaluation.results import Results, save

    jobs = [job for job, _ in evaluated]
    rows = [
        replace(row, options={key: job.option(key) for key in keys}) for job, result in evaluated for row in result.rows
    ]
    gathered = Results(rows, {**evaluated[0][1].about, **without_results})
    save(gathered, folder)
    page = write_report(gathered, folder, _config_text(jobs[0]), command)
    print(f"\n{len(rows)} rows of {len(jobs)} jobs are in {folder / 'results.csv'}: open {page}")


def _gather_trainings(
    jobs: Sequence[Job], keys: Sequence[str], curve: TrainingCurve, folder: Path, command: str, failed: Sequence[str]
) -> None:
    from guided_diffusion.evaluation.report.page import Trainings, write_training_report
    from guided_diffusion.evaluation.results import write_csv

    table = folder / curve.file
    rows = [row | {key: job.option(key) for key in keys} for job in jobs for row in _rows(job.folder / curve.file)]
    write_csv(table, rows)
    picture = table.with_suffix(".png")
    _plot(rows, keys, curve, picture)
    names = varied(jobs, frozenset())
    last_grids = {
        _setting({key: job.option(key) for key in names}): max(job.folder.glob("samples/step_*.png"), default=None)
        for job in jobs
    }
    grids = {setting: grid for setting, grid in last_grids.items() if grid}
    caption = f"{curve.quantity.capitalize()} against guidance scale. Dashed: {curve.real}."
    trainings = Trainings(rows, picture, caption, grids, failed)
    page = write_training_report(trainings, folder, _config_text(jobs[0]), command)
    print(f"\n{len(rows)} rows of {len(jobs)} jobs are in {table}: open {page}")


def _setting(options: Mapping[str, str]) -> str:
    return ", ".join(f"{key} = {value}" for key, value in options.items())


def _config_text(job: Job) -> str:
    return OmegaConf.to_yaml(OmegaConf.load(job.folder / "config.yaml"))


def _rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _plot(rows: Sequence[dict[str, str]], keys: Sequence[str], curve: TrainingCurve, picture: Path) -> None:
    """Plot one line for each combination of the values that the sweep varied."""
    from guided_diffusion.evaluation.plots.curves import save_share_plot

    lines: dict[str, set[tuple[float, float]]] = defaultdict(set)
    for row in rows:
        line = _setting({key: row[key] for key in keys}) or "samples"
        lines[line].add((float(row["scale"]), float(row[curve.column])))
    ordered = {line: sorted(points) for line, points in lines.items()}
    save_share_plot(ordered, float(rows[0][curve.level]), picture, curve.quantity, curve.real)
