"""Write ``report.html``, the page of an evaluation or a sweep: one file with its pictures inside, to be read offline.

The templates, the style and the script lie beside this module.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from guided_diffusion.evaluation.modalities import modality
from guided_diffusion.evaluation.plots.curves import Curve, curves
from guided_diffusion.evaluation.results import Interval, Result, Results
from guided_diffusion.evaluation.summary import number, shown
from guided_diffusion.utils.files import atomic_write

MAX_DETAILED = 4
"""The largest number of curves whose plots and classes are on the page; other plots stay in the folder."""

LARGE_PLOT = 150_000
"""The size in bytes above which a plot is put on the page with less detail."""

HEADINGS = {
    "fld": "Fréchet distance",
    "kid": "kernel distance",
    "inception_fid": "Inception FID",
    "inception_kid": "Inception KID",
    "improved_precision": "improved precision",
    "improved_recall": "improved recall",
    "nearest": "nearest real image",
    "distance_mean": "mean distance to the curve",
    "distance_p95": "95th percentile of the distance",
    "off_curve": "off the curve",
    "own_pattern": "nearest to its own pattern",
    "sliced_wasserstein": "sliced Wasserstein",
    "mmd": "squared MMD",
    "total_variation": "total variation",
    "kl": "divergence from the density",
}


UNKNOWN = Interval(math.nan, math.nan, math.nan)
"""The value of a measure that some jobs of a sweep have, and this one has not."""


@dataclass(frozen=True)
class Trainings:
    """The results of a sweep of trainings."""

    rows: Sequence[Mapping[str, str]]
    """The rows of its table, with the same columns."""
    plot: Path
    """The plot of the table."""
    caption: str
    grids: Mapping[str, Path]
    """Pictures of samples, by the name of the job."""
    failed: Sequence[str]
    """The jobs without results."""


class Cell(NamedTuple):
    """The text of a cell, and the interval shown below it."""

    value: str
    interval: str = ""


class Table(NamedTuple):
    """The headings and rows of a table; the first cell of a row is its heading."""

    heads: Sequence[str]
    rows: Sequence[Sequence[Cell]]


def write_report(results: Results, folder: Path, config_yaml: str, command: str) -> Path:
    """Write ``folder/report.html`` of an evaluation or a sweep, and the plots it shows to ``folder/plots``.

    The page also shows the resolved config and the command.

    Raises:
        ValueError: If there are no rows.
    """
    if not results.rows:
        raise ValueError("there is nothing to report: the results have no rows")
    plots = modality(results.kind).save_plots(results, folder)
    return _write(folder, evaluation_page(results, plots, config_yaml, command))


def write_training_report(trainings: Trainings, folder: Path, config_yaml: str, command: str) -> Path:
    """Write ``folder/report.html`` of a sweep of trainings; ``config_yaml`` is the resolved config of the first job."""
    heads = [HEADINGS.get(name, name.replace("_", " ")) for name in trainings.rows[0]]
    measured = Table(heads, [[Cell(value) for value in row.values()] for row in trainings.rows])
    values = vars(trainings) | {"measured": measured, "config": config_yaml, "command": command}
    return _write(folder, _render("trainings.html.j2", values))


def evaluation_page(results: Results, plots: Mapping[str, Path], config_yaml: str, command: str) -> str:
    """Return the HTML of an evaluation; ``plots`` holds its plots' PNGs by name, the rest is as in ``write_report``."""
    shown_as, lines = modality(results.kind), curves(results)
    first = lines[0].scales
    values = {
        "data": results.about["data"],
        "facts": _facts(results, lines),
        "summary": shown_as.summary(results),
        "failed": results.about.get("failed") or [],
        "skipped": results.about.get("skipped") or [],
        "modality": shown_as,
        "plots": plots,
        "curves": lines,
        "class_names": results.about["class_names"],
        "start": min(range(len(first)), key=lambda index: abs(first[index] - 1)),
        "measured": _measured(results, lines, shown_as.floors),
        "detailed": [(curve, _classes(curve)) for curve in lines[:MAX_DETAILED]],
        "config": config_yaml,
        "command": command,
    }
    return _render("evaluation.html.j2", values)


def _write(folder: Path, page: str) -> Path:
    with atomic_write(folder / "report.html") as path:
        path.write_text(page, encoding="utf-8")
    return folder / "report.html"


def _render(template: str, values: Mapping[str, Any]) -> str:
    files = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=files, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {one.__name__.removeprefix("_"): one for one in FILTERS}
    return environment.get_template(template).render(values)


def _facts(results: Results, lines: Sequence[Curve]) -> list[str]:
    about = results.about
    counts = sorted({row.num_samples for row in results.rows})
    samples = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return [
        *(f"{name}: {about[name]}" for name in ("checkpoint", "weights", "seed") if name in about),
        f"{samples} samples at each scale",
        lines[0].name if len(lines) == 1 else f"{len(lines)} curves",
    ]


def _strip_values(row: Result) -> str:
    measures = modality(row.kind).strip_measures.items()
    return ", ".join(f"{text} {shown(name, row.measured[name].value)}" for name, text in measures)


def _measured(results: Results, lines: Sequence[Curve], floors: Mapping[str, str]) -> Table:
    """Return the table of all measures with their intervals; it names the curves if there are several."""
    curve_head = ["curve"] if len(lines) > 1 else []
    names = list(dict.fromkeys(name for row in results.rows for name in row.columns if name in row.measured))
    floors = {name: head for name, head in floors.items() if any(name in row.floors for row in results.rows)}
    heads = [*curve_head, "w", "w\N{NO-BREAK SPACE}\N{MINUS SIGN}\N{NO-BREAK SPACE}1"]
    heads += [*(HEADINGS.get(name, name) for name in names), *floors.values(), "network calls", "seconds"]
    rows = []
    for curve in lines:
        for row in curve.rows:
            start = [*([curve.name] if curve_head else []), f"{row.scale:g}", f"{row.scale - 1:g}"]
            end = [*(shown(name, row.floors.get(name, math.nan)) for name in floors)]
            end += [number(row.nfe), number(row.seconds)]
            measured = (_interval(name, row.measured.get(name, UNKNOWN)) for name in names)
            rows.append([*map(Cell, start), *measured, *map(Cell, end)])
    return Table(heads, rows)


def _interval(name: str, interval: Interval) -> Cell:
    value, low, high = (shown(name, part) for part in interval)
    return Cell(value, f"{low} to {high}" if math.isfinite(interval.low + interval.high) else "")


def _classes(curve: Curve) -> Table:
    """Return the table with a row for every scale and class."""

    def text(name: str, value: Any) -> str:
        return str(value) if name in ("class", "class_name", "count") else number(float(value))

    classes = [(row.scale, of_class) for row in curve.rows for of_class in row.per_class]
    names = list(dict.fromkeys(name for _, of_class in classes for name in of_class))
    rows = [[Cell(f"{w:g}"), *(Cell(text(name, one[name])) for name in names)] for w, one in classes]
    return Table(["w", *(name.replace("_", " ") for name in names)], rows)


def _unbroken(text: str) -> str:
    """Return the text with no line break between a number and its sign or name."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%").replace("w = ", "w\N{NO-BREAK SPACE}=\N{NO-BREAK SPACE}")


def _plot_uri(path: Path) -> str:
    with Image.open(path) as image:
        return _data_uri(image.convert("RGB"), "WEBP" if path.stat().st_size > LARGE_PLOT else "PNG")


def _data_uri(image: Image.Image, encoding: str = "PNG") -> str:
    buffer = BytesIO()
    image.save(buffer, encoding, optimize=True, quality=75)
    return f"data:image/{encoding.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


FILTERS = (_data_uri, _plot_uri, _strip_values, _unbroken)
"""The filters of the templates, which have these names without the underscore."""
