"""The results file of ``time_to_quality.py``, with its table and its figure."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from contestants.base import Calibration

from guided_diffusion.utils.files import atomic_write

NAMES = {
    "ours": "ours, guided_mnist",
    "ours_cfg": "ours, cfg_mnist",
    "diffusers": "diffusers' example",
    "teapearce": "TeaPearce's lesson",
    "teapearce_64": "TeaPearce's lesson, batch 64",
}
"""The name of each contestant in the table and the figure."""


class Measured(NamedTuple):
    """The quality of the samples at one guidance scale."""

    scale: float
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    distance: float
    floor: float

    @property
    def ratio(self) -> float:
        """The Fréchet distance in units of its floor."""
        return self.distance / self.floor


@dataclass(frozen=True)
class Run:
    """One training of a contestant with the quality of its samples."""

    contestant: str
    minutes: float
    """The budget, in minutes of processor time."""
    seconds: float
    """The processor time that the training took."""
    steps: int
    batch_size: int
    parameters: int
    sampling_seconds: float
    measured: Sequence[Measured]

    @property
    def most_accurate(self) -> Measured:
        return max(self.measured, key=lambda row: row.accuracy)

    @property
    def closest(self) -> Measured:
        return min(self.measured, key=lambda row: row.ratio)


@dataclass(frozen=True)
class Results:
    """Everything in a results file."""

    settings: dict[str, Any]
    """The settings on which all runs depend."""
    calibrations: dict[str, Calibration] = field(default_factory=dict)
    runs: list[Run] = field(default_factory=list)

    def find(self, contestant: str, minutes: float) -> Run | None:
        return next((run for run in self.runs if (run.contestant, run.minutes) == (contestant, minutes)), None)

    def of(self, contestant: str) -> list[Run]:
        """Return the runs of a contestant, the shortest first."""
        return sorted((run for run in self.runs if run.contestant == contestant), key=lambda run: run.minutes)

    def contestants(self) -> list[str]:
        """Return the contestants that have runs, in the order of ``NAMES``."""
        return [name for name in NAMES if self.of(name)]

    def save(self, path: Path) -> None:
        content = {
            "settings": self.settings,
            "calibrations": {name: one._asdict() for name, one in self.calibrations.items()},
            "runs": [asdict(run) | {"measured": [row._asdict() for row in run.measured]} for run in self.runs],
        }
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """Return the results in a file.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no results of this benchmark.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        runs = [Run(**one | {"measured": [Measured(**row) for row in one["measured"]]}) for one in content["runs"]]
        calibrations = {name: Calibration(**one) for name, one in content["calibrations"].items()}
        return Results(content["settings"], calibrations, runs)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} holds no results of this benchmark ({error}): choose another --results") from error


def start(path: Path, settings: dict[str, Any]) -> Results:
    """Return the results in a file, to be continued, or new ones if there is no such file.

    Raises:
        ValueError: If the file holds results with other settings.
    """
    if not path.is_file():
        return Results(settings)
    results = read(path)
    for name, value in settings.items():
        if results.settings.get(name) != value:
            raise ValueError(
                f"{path} has results with {name} = {results.settings.get(name)}, not {value}: "
                "give the same, or choose another --results"
            )
    return results


def table(results: Results) -> str:
    """Return a Markdown table with the best scale of each run for each measure."""
    lines = [
        "| contestant | budget, minutes | used | steps | judge accuracy | distance / floor |",
        "|---|---|---|---|---|---|",
    ]
    for name in results.contestants():
        for run in results.of(name):
            accurate, close = run.most_accurate, run.closest
            lines.append(
                f"| {NAMES[name]} | {run.minutes:g} | {run.seconds / 60:.2f} | {run.steps:,} x {run.batch_size} "
                f"| {accurate.accuracy:.2%} (w = {accurate.scale:g}) | {close.ratio:.2f} (w = {close.scale:g}) |"
            )
    return "\n".join(lines)


def verdicts(results: Results, ours: str = "ours", minutes: float = 2.0) -> list[str]:
    """Return, for each peer, how many times longer it takes to the quality that we reach in ``minutes``."""
    goal = results.find(ours, minutes)
    if goal is None:
        return []
    sentences = []
    for name in results.contestants():
        if name.startswith("ours"):
            continue
        runs = results.of(name)
        errors = [(run.seconds, 1 - run.most_accurate.accuracy) for run in runs]
        accuracy = _reached(errors, 1 - goal.most_accurate.accuracy)
        distance = _reached([(run.seconds, run.closest.ratio) for run in runs], goal.closest.ratio)
        longest = f"not within {runs[-1].minutes:g} minutes"
        parts = [
            f"{what} {longest if seconds is None else f'in {seconds / goal.seconds:.1f} times the time'}"
            for what, seconds in (("accuracy", accuracy), ("distance", distance))
        ]
        sentences.append(f"{NAMES[name]} reaches our quality of {minutes:g} minutes: {', '.join(parts)}")
    return sentences


def _reached(points: Sequence[tuple[float, float]], goal: float) -> float | None:
    """Return the time at which a falling quantity reaches the goal, by lines in log-time; None if it does not.

    If the first point has reached it, that is its time.
    """
    for number, (seconds, value) in enumerate(points):
        if value > goal:
            continue
        if not number:
            return seconds
        before, above = points[number - 1]
        share = (above - goal) / (above - value)
        return math.exp(math.log(before) + share * (math.log(seconds) - math.log(before)))
    return None


def plot(results: Results, path: Path) -> None:
    """Write the figure: accuracy, and distance over floor, against processor minutes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name in results.contestants():
        runs = results.of(name)
        minutes = [run.seconds / 60 for run in runs]
        left.plot(minutes, [100 * run.most_accurate.accuracy for run in runs], "o-", label=NAMES[name])
        right.plot(minutes, [run.closest.ratio for run in runs], "o-", label=NAMES[name])
    budgets = sorted({run.minutes for run in results.runs})
    for axes in (left, right):
        axes.set_xscale("log")
        axes.set_xticks(budgets, [f"{minutes:g}" for minutes in budgets], minor=False)
        axes.minorticks_off()
        axes.set_xlabel("processor minutes of training, one core")
        axes.grid(alpha=0.3)
    left.set_ylabel("judge accuracy, %")
    right.set_yscale("log")
    right.set_ylabel("Fréchet distance / floor")
    right.axhline(1, color="grey", linestyle="--", linewidth=1)
    left.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
