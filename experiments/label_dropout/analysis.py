"""Plot accuracy, distance and diversity against the scale for each share of dropped labels.

    python experiments/label_dropout/analysis.py SWEEP [--output-dir FOLDER]

SWEEP is the folder of a sweep of evaluations over checkpoints that differ in ``label_dropout``, which is read from each
checkpoint. Writes ``quality.csv`` and ``quality.png``.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from guided_diffusion import load
from guided_diffusion.evaluation.plots.curves import Curve, curves, draw_against_scale, draw_floors, spread_scales
from guided_diffusion.evaluation.results import read, write_csv

MEASURES = {
    "accuracy": "judge accuracy",
    "fld": "Fréchet distance",
    "coverage": "coverage",
    "diversity": "diversity within a class",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", type=Path)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/label_dropout"))
    arguments = parser.parse_args()

    found = [(load(one.rows[0].options["checkpoint"]).label_dropout, one) for one in curves(read(arguments.sweep))]
    found.sort(key=lambda pair: pair[0])
    table = [
        {"label_dropout": share} | {name: value for name, value in row.row.items() if name != "checkpoint"}
        for share, one in found
        for row in one.rows
    ]
    write_csv(arguments.output_dir / "quality.csv", table)
    plot([replace(one, name=f"p = {share:g}") for share, one in found], arguments.output_dir / "quality.png")


def plot(lines: list[Curve], path: Path) -> None:
    """Plot a panel for each measure, with a line for each share of dropped labels."""
    figure = Figure(figsize=(9, 6.4), dpi=110, layout="constrained")
    panels = figure.subplots(2, 2, sharex=True).flatten()
    for axes, (measure, words) in zip(panels, MEASURES.items(), strict=True):
        draw_against_scale(axes, lines, measure)
        if measure == "fld":
            draw_floors(axes, lines, "fld", "real images against real images")
        spread_scales(axes, np.unique([row.scale for line in lines for row in line.rows]).tolist())
        axes.set(ylabel=words)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    for axes in panels[:2]:
        axes.set_xlabel("")
    handles, labels = panels[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    figure.savefig(path)


if __name__ == "__main__":
    main()
