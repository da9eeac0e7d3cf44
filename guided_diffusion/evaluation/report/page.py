"""The page of an evaluation or a sweep: one HTML file that holds its pictures and needs neither network nor server."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

from guided_diffusion.evaluation.modalities import Modality, modality
from guided_diffusion.evaluation.plots.curves import Curve, curve_name, curves
from guided_diffusion.evaluation.results import Interval, Result, Results
from guided_diffusion.evaluation.summary import number, shown
from guided_diffusion.utils.files import atomic_write

MAX_DETAILED = 4
"""Curves whose plots and classes are part of the page; those of the others stay in the folder."""


HEADINGS = {
    "fld": "Fréchet distance",
    "kid": "kernel distance",
    "improved_precision": "improved precision",
    "improved_recall": "improved recall",
    "nearest": "nearest real image",
    "distance_mean": "mean distance to the curve",
    "distance_p95": "95th percentile of it",
    "off_curve": "off the curve",
    "own_pattern": "nearest to the own pattern",
    "sliced_wasserstein": "sliced Wasserstein",
    "mmd": "squared MMD",
    "total_variation": "total variation",
    "kl": "divergence from the density",
}


STYLE = """
:root { color-scheme: light dark; --text: #1c1e21; --back: #fff; --soft: #f3f4f6; --line: #d5d8dd; --accent: #1660b0 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e4e6ea; --back: #15171a; --soft: #22252a; --line: #3b4048; --accent: #7db6f5 }
}
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 68rem; padding: 1rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; line-height: 1.25; margin: .5rem 0 }
h2 { font-size: 1.2rem; margin: 2.2rem 0 .6rem }
h3 { font-size: 1rem; margin: 1.4rem 0 .4rem }
figure { margin: 0 0 1.4rem }
figcaption { font-size: .9rem; margin: .3rem 0 }
img { display: block; max-width: 100%; height: auto; border-radius: 4px }
.plots { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
.plots img, .scroll > img { background: #fff; padding: 4px }
.curve > figure > img { max-width: min(100%, 36rem) }
.scroll { overflow-x: auto; max-width: 100%; margin-bottom: 1rem }
.scroll > img { max-width: none; width: 100%; min-width: 42rem }
.scatter { background: #fff }
.strip { width: 100%; max-width: 44rem; image-rendering: pixelated }
.facts { margin: .5rem 0; color: inherit; opacity: .85; font-size: .9rem }
.controls { background: var(--soft); border-radius: 8px; padding: .8rem 1rem; margin-bottom: 1rem }
.controls select { display: block; max-width: 100%; font: inherit; margin-bottom: .6rem }
.controls input { width: 100%; height: 2rem; accent-color: var(--accent); margin: 0 }
output, figcaption b { font-weight: 600; font-variant-numeric: tabular-nums }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; overflow-wrap: normal }
th, td { padding: .3rem .6rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap }
thead th { background: var(--soft); vertical-align: bottom; white-space: normal }
th:first-child { position: sticky; left: 0; text-align: left; white-space: normal; max-width: 10rem }
tbody th { background: var(--back) }
td small { display: block; opacity: .75 }
summary { cursor: pointer; padding: .4rem 0; font-weight: 600 }
pre { background: var(--soft); padding: .8rem; border-radius: 8px; overflow-x: auto; font-size: .8rem;
  overflow-wrap: normal }
a:focus-visible, input:focus-visible, select:focus-visible, summary:focus-visible, .scroll:focus-visible
  { outline: 2px solid var(--accent); outline-offset: 2px }
[hidden] { display: none !important }
"""


SCRIPT = """
const view = document.getElementById('view'), slider = document.getElementById('scale')
const curve = document.getElementById('curve'), shown = document.getElementById('shown')
const groups = [...view.querySelectorAll('section')]
function show() {
  const figures = [...groups[curve.selectedIndex].querySelectorAll('figure')]
  slider.max = figures.length - 1
  const index = Number(slider.value)
  groups.forEach((group, i) => { group.hidden = i !== curve.selectedIndex })
  figures.forEach((figure, i) => { figure.hidden = i !== index })
  shown.textContent = figures[index].dataset.scale
  slider.setAttribute('aria-valuetext', figures[index].dataset.scale)
}
view.querySelectorAll('h3').forEach(heading => { heading.hidden = true })
view.querySelector('.controls').hidden = false
slider.addEventListener('input', show)
curve.addEventListener('change', show)
show()
"""


def write_report(results: Results, folder: Path, config_yaml: str, command: str) -> Path:
    """Write ``folder/report.html``, and the plots it shows to ``folder/plots``.

    Args:
        results: of one evaluation, or those of a sweep.
        folder: of the evaluation.
        config_yaml: the resolved config.
        command: that made the evaluation.

    Returns:
        The path of the page.

    Raises:
        ValueError: if there are no rows.
    """
    if not results.rows:
        raise ValueError("there is nothing to report: the results have no rows")
    plots = modality(results.kind).save_plots(results, folder)
    with atomic_write(folder / "report.html") as path:
        path.write_text(page(results, plots, config_yaml, command), encoding="utf-8")
    return folder / "report.html"


@dataclass(frozen=True)
class Trainings:
    """What a sweep of trainings left."""

    rows: Sequence[Mapping[str, str]]
    """Of its table, with the same columns."""
    plot: Path
    """Of the table."""
    caption: str
    grids: Mapping[str, Path]
    """Pictures of samples, by the name of the job."""
    failed: Sequence[str]
    """Jobs that left nothing."""


def write_training_report(trainings: Trainings, folder: Path, config_yaml: str, command: str) -> Path:
    """Write ``folder/report.html`` of a sweep of trainings.

    Args:
        trainings: what it left.
        folder: of the sweep.
        config_yaml: the resolved config of the first job.
        command: that made the sweep.

    Returns:
        The path of the page.
    """
    heads = [HEADINGS.get(name, name.replace("_", " ")) for name in trainings.rows[0]]
    first, *others = trainings.rows[0]
    body = ""
    for row in trainings.rows:
        cells = "".join(f"<td>{escape(row[name])}</td>" for name in others)
        body += f'<tr><th scope="row">{escape(row[first])}</th>{cells}</tr>'
    samples = "".join(
        f"<details><summary>{escape(name)}</summary>{_plot(path, name)}</details>"
        for name, path in trainings.grids.items()
    )
    sections = [
        "<h1>A sweep of trainings</h1>",
        _failures(trainings.failed),
        f'<div class="plots">{_plot(trainings.plot, trainings.caption)}</div>',
        f"<h2>Measured</h2>{_scrolling(_table(heads, body), 'everything measured')}",
        f"<h2>Samples</h2>{samples}" if samples else "",
        _origin(config_yaml, command),
    ]
    with atomic_write(folder / "report.html") as path:
        path.write_text(_document("A sweep of trainings", "\n".join(sections), script=""), encoding="utf-8")
    return folder / "report.html"


def page(results: Results, plots: Mapping[str, Path], config_yaml: str, command: str) -> str:
    """The HTML, with the plots of ``save_plots``."""
    lines, exhibit = curves(results), modality(results.kind)
    sections = [
        _head(results, lines),
        _failures(results.about.get("failed") or []),
        "<h2>Against the scale</h2>",
        f'<div class="plots">{"".join(_plot(plots[name], text) for name, text in exhibit.captions.items())}</div>',
        _viewer(lines, exhibit, results.about["class_names"]),
        _measures(results),
        _details_of_curves(lines, plots, exhibit),
        _origin(config_yaml, command),
    ]
    return _document(f"Evaluation on {results.about['data']}", "\n".join(sections))


def reading(results: Results) -> str:
    """What the numbers say, in a paragraph of plain text."""
    return modality(results.kind).summary(results)


def _document(title: str, body: str, script: str = SCRIPT) -> str:
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
{body}
</main>
<script>{script}</script>
</body>
</html>
"""


def _head(results: Results, lines: Sequence[Curve]) -> str:
    about = results.about
    counts = sorted({row.num_samples for row in results.rows})
    samples = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    shown = [f"{name}: {about[name]}" for name in ("checkpoint", "weights", "seed") if name in about]
    shown += [f"{samples} samples at each scale", lines[0].name if len(lines) == 1 else f"{len(lines)} curves"]
    facts = escape("; ".join(shown))
    return f"""<h1>Guidance on {escape(str(about["data"]))}</h1>
<p class="facts">{facts}</p>
<p>{_prose(reading(results))}</p>"""


def _failures(failed: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(str(job))}</li>" for job in failed)
    return f"<h2>Failed jobs</h2><p>These left nothing to show:</p><ul>{items}</ul>" if items else ""


def _plot(path: Path, caption: str) -> str:
    return f'<figure><img src="{_picture(path)}" alt="{_alt(path)}"><figcaption>{_prose(caption)}</figcaption></figure>'


def _wide_plot(path: Path, caption: str) -> str:
    image = f'<img src="{_picture(path)}" alt="{_alt(path)}">'
    return f"<figure>{_scrolling(image, caption)}<figcaption>{_prose(caption)}</figcaption></figure>"


def _alt(path: Path) -> str:
    return escape(f"plot: {path.stem.replace('_', ' ')}")


def _prose(text: str) -> str:
    return escape(text).replace(" %", "&nbsp;%").replace("w = ", "w&nbsp;=&nbsp;")


def _scrolling(content: str, name: str) -> str:
    return f'<div class="scroll" role="region" aria-label="{escape(name)}" tabindex="0">{content}</div>'


def _viewer(lines: Sequence[Curve], exhibit: Modality, names: Sequence[str]) -> str:
    options = "".join(f"<option>{escape(curve.name)}</option>" for curve in lines)
    start = min(range(len(lines[0].rows)), key=lambda index: abs(lines[0].scales[index] - 1))
    return f"""<h2>The same noise under each scale</h2>
<div id="view">
<div class="controls" hidden>
<select id="curve" aria-label="curve" autocomplete="off"{" hidden" if len(lines) == 1 else ""}>{options}</select>
<label for="scale">Guidance scale: <output id="shown" for="scale"></output></label>
<input id="scale" type="range" min="0" max="{len(lines[0].rows) - 1}" step="1" value="{start}"
 aria-label="guidance scale" autocomplete="off">
</div>
{"".join(_strips(curve, exhibit, names) for curve in lines)}
</div>"""


def _strips(curve: Curve, exhibit: Modality, names: Sequence[str]) -> str:
    figures = "".join(_strip(row, exhibit, names) for row in curve.rows)
    return f"<section><h3>{escape(curve.name)}</h3>{figures}</section>"


def _strip(row: Result, exhibit: Modality, names: Sequence[str]) -> str:
    scale = f"w = {row.scale:g}"
    measured = exhibit.strip_measures.items()
    values = ", ".join(f"{text} {shown(name, row.measured[name].value)}" for name, text in measured)
    pixels = exhibit.strip(row, names)
    source = _data_uri(pixels, "PNG")
    return (
        f'<figure data-scale="{scale}"><img class="{exhibit.strip_class}" src="{source}" width="{pixels.width}"'
        f' height="{pixels.height}" alt="Samples at {scale}">'
        f"<figcaption><b>{scale}</b>: {_prose(values)}</figcaption></figure>"
    )


def _measures(results: Results) -> str:
    several = len(curves(results)) > 1
    names = [name for name in modality(results.kind).columns if name in results.rows[0].measured]
    floors = modality(results.kind).floors
    heads = [
        *(["curve"] if several else []),
        "w",
        "w\N{NO-BREAK SPACE}\N{MINUS SIGN}\N{NO-BREAK SPACE}1",
        *(HEADINGS.get(name, name) for name in names),
    ]
    heads += [*floors.values(), "network calls", "seconds"]
    body = "".join(_measures_row(row, names, list(floors), several) for curve in curves(results) for row in curve.rows)
    table = _table(heads, body)
    return (
        f"<h2>Measured</h2><p>Below each figure its 95&nbsp;% interval.</p>{_scrolling(table, 'everything measured')}"
    )


def _measures_row(row: Result, names: Sequence[str], floors: Sequence[str], several: bool) -> str:
    scale = f"{row.scale:g}"
    first = (
        f'<th scope="row">{escape(curve_name(row))}</th><td>{scale}</td>'
        if several
        else f'<th scope="row">{scale}</th>'
    )
    cells = "".join(f"<td>{_interval(name, row.measured[name])}</td>" for name in names)
    below = "".join(f"<td>{shown(name, row.floors[name])}</td>" for name in floors)
    rest = "".join(f"<td>{number(value)}</td>" for value in (row.nfe, row.seconds))
    return f"<tr>{first}<td>{row.scale - 1:g}</td>{cells}{below}{rest}</tr>"


def _table(heads: Sequence[str], body: str) -> str:
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in heads)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _details_of_curves(lines: Sequence[Curve], plots: Mapping[str, Path], exhibit: Modality) -> str:
    left = len(lines) - MAX_DETAILED
    note = (
        f"<p>The pictures of {left} more curves are in plots/, their classes in per_class.csv.</p>" if left > 0 else ""
    )
    return (
        "<h2>Classes</h2>" + "".join(_details_of_curve(curve, plots, exhibit) for curve in lines[:MAX_DETAILED]) + note
    )


def _details_of_curve(curve: Curve, plots: Mapping[str, Path], exhibit: Modality) -> str:
    figures = "".join(
        (_wide_plot if name in exhibit.wide else _plot)(plots[f"{name}-{curve.slug}"], caption)
        for name, caption in exhibit.captions_of_curve.items()
    )
    table = _scrolling(_per_class(curve), "measures of each class")
    return (
        f'<section><h3>{escape(curve.name)}</h3><details><summary>Pictures</summary><div class="curve">{figures}</div>'
        f"</details><details><summary>Table of the classes</summary>{table}</details></section>"
    )


def _per_class(curve: Curve) -> str:
    names = list(dict.fromkeys(name for row in curve.rows for of_class in row.per_class for name in of_class))
    body = "".join(_per_class_row(row.scale, of_class, names) for row in curve.rows for of_class in row.per_class)
    return _table(["w", *(name.replace("_", " ") for name in names)], body)


def _per_class_row(scale: float, of_class: Mapping[str, Any], names: Sequence[str]) -> str:
    cells = "".join(f"<td>{_cell(name, of_class[name])}</td>" for name in names)
    return f'<tr><th scope="row">{scale:g}</th>{cells}</tr>'


def _cell(name: str, value: Any) -> str:
    words = name in ("class", "class_name", "count")
    return escape(str(value)) if words else number(float(value))


def _origin(config_yaml: str, command: str) -> str:
    return (
        f"<h2>How it was made</h2><pre><code>{escape(command)}</code></pre>"
        f"<details><summary>Config</summary><pre><code>{escape(config_yaml)}</code></pre></details>"
    )


def _interval(name: str, interval: Interval) -> str:
    value, low, high = (shown(name, part) for part in interval)
    return f"{value}<small>{low} to {high}</small>" if math.isfinite(interval.low + interval.high) else value


def _picture(path: Path) -> str:
    """A plot as it is; a large picture with less detail."""
    with Image.open(path) as image:
        large = path.stat().st_size > 150_000
        return _data_uri(image.convert("RGB"), "WEBP") if large else _data_uri(image.convert("RGB"), "PNG")


def _data_uri(image: Image.Image, form: str) -> str:
    buffer = BytesIO()
    image.save(buffer, form, optimize=True, quality=75)
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
