"""Plot accuracy and quality of each family of guidance against the scale, and quality against accuracy.

    python experiments/two_families/analysis.py EVALUATION... [--output-dir FOLDER]

EVALUATION is the folder of an evaluation or of a sweep of them. Together they must hold all three methods at the same
scales: ``guidance=cfg``, and ``guidance=classifier`` with ``guidance.base=conditional`` and without. Writes
``quality.csv``, ``quality.png`` and ``accuracy.png``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from guided_diffusion.evaluation.plots.curves import Curve, curves, draw_against_scale, draw_floors, spread_scales
from guided_diffusion.evaluation.plots.image_evaluation import plot_accuracy
from guided_diffusion.evaluation.results import read, write_csv

NAMES = {
    "ClassifierFree": "classifier-free",
    "ClassifierGuidance(base=conditional)": "classifier, conditional base",
    "ClassifierGuidance": "classifier, unconditional base",
}
COLUMNS = (
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "fld",
    "fld_floor",
    "improved_precision",
    "improved_recall",
    "density",
    "coverage",
    "diversity",
    "saturation",
    "num_samples",
    "nfe",
    "seconds",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("evaluations", type=Path, nargs="+")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/two_families"))
    arguments = parser.parse_args()

    found = [read(folder) for folder in arguments.evaluations]
    by_method = {one.rows[0].method: one for results in found for one in curves(results)}
    if missing := [name for method, name in NAMES.items() if method not in by_method]:
        parser.error(f"no evaluation has {'; '.join(missing)}")
    lines = [Curve(name, method, by_method[method].rows) for method, name in NAMES.items()]
    table = [
        {"method": line.name, "scale": row.scale} | {name: row.row[name] for name in COLUMNS}
        for line in lines
        for row in line.rows
    ]
    write_csv(arguments.output_dir / "quality.csv", table)
    plot(lines, arguments.output_dir / "quality.png")
    accuracy = plot_accuracy(lines, found[0].about["judge_ceiling"])
    spread_scales(accuracy.axes[0], lines[0].scales)
    accuracy.savefig(arguments.output_dir / "accuracy.png")


def plot(lines: list[Curve], path: Path) -> None:
    """Plot Fréchet distance against the scale and against accuracy, and precision against recall."""
    figure = Figure(figsize=(13, 4.4), dpi=100, layout="constrained")
    distance, trade, manifold = figure.subplots(1, 3)
    draw_against_scale(distance, lines, "fld")
    draw_floors(distance, lines, "fld", "real images against real images")
    spread_scales(distance, lines[0].scales)
    paths = ((trade, "accuracy", "fld"), (manifold, "improved_recall", "improved_precision"))
    for axes, across, up in paths:
        for line in lines:
            x, y = line.measured(across)[0], line.measured(up)[0]
            axes.plot(x, y, marker="o", markersize=4)
            for scale in {line.scales[np.argmin(line.measured("fld")[0])], line.scales[-1]}:
                index = line.scales.index(scale)
                axes.annotate(f"{scale:g}", (x[index], y[index]), (4, 4), textcoords="offset points", fontsize=8)
    distance.set(ylabel="Fréchet distance in the judge's features", ylim=(0, None))
    trade.set(xlabel="judge accuracy", ylabel="Fréchet distance", xlim=(0.945, 1.003), ylim=(0, None))
    manifold.set(xlabel="improved recall", ylabel="improved precision")
    for axes in (distance, trade, manifold):
        axes.grid(alpha=0.3)
    figure.legend(*distance.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
