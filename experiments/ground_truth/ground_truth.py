"""Measure how far guided samples are from p(x) p(y|x)^w, and how much of it is due to method, sampler and network.

    python experiments/ground_truth/ground_truth.py [CHECKPOINT] [--num-samples 4000] [--output-dir FOLDER]

The data is that of ``data=mixture``, whose target, samples of the target and ideal denoiser are exact. CHECKPOINT is a
diffusion model trained on it; without one, the rows of the network are left out. All runs use the same noise. Writes
``distances.csv``, ``distances.png`` and ``samples.png``; rows that are already in the table are not run again.
"""

from __future__ import annotations

import argparse
import csv
from dataclasses import astuple, dataclass, fields
from itertools import product
from pathlib import Path
from time import perf_counter

import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from torch import Tensor

from guided_diffusion import load
from guided_diffusion.data import Patterns
from guided_diffusion.denoisers import Denoise
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.oracles.powered_mixture import PoweredMixture
from guided_diffusion.samplers import ddim, ddpm, dpmpp_2m, heun, uniform_times
from guided_diffusion.schedules import Cosine

SCALES = (0.0, 1.0, 2.0, 4.0)
STEPS = (10, 25, 50, 200)
SAMPLERS = {"ddpm": ddpm, "ddim": ddim, "heun": heun, "dpmpp_2m": dpmpp_2m}
LABEL = 0
LIMIT, CELLS, POINTS = 1.5, 40, 10
"""Half the side of the square, the cells along a side, and the points along a cell for its exact probability."""
FINENESS = 6.0
"""Grid points of the ideal denoiser per standard deviation of the mixture."""
SHORT = 25
"""The largest number of steps for classifier guidance, which equals classifier-free guidance if both are exact."""
DIRECTIONS = 64
FLOORS = 10
"""The number of sets of target samples, whose mean and largest distance are recorded."""


@dataclass(frozen=True)
class Row:
    """A row of ``distances.csv``."""

    method: str
    scale: float
    sampler: str
    steps: int
    evaluations: int
    total_variation: float
    kl: float
    sliced_wasserstein: float
    num_samples: int
    seconds: float


class Distance:
    """The distance from samples to a powered mixture: total variation, KL and sliced Wasserstein-1."""

    def __init__(self, powered: PoweredMixture, num_samples: int, generator: torch.Generator) -> None:
        self.log_mass = cell_log_mass(powered)
        self.labels = torch.full((num_samples,), LABEL)
        self.exact = [powered.sample(self.labels, generator) for _ in range(FLOORS + 1)]
        angles = torch.arange(DIRECTIONS, dtype=torch.float64) * torch.pi / DIRECTIONS
        self.directions = torch.stack([angles.cos(), angles.sin()])

    def __call__(self, x: Tensor) -> tuple[float, float, float]:
        total_variation, kl = between(cell_shares(x).log(), self.log_mass)
        sorted_x, sorted_exact = ((points @ self.directions).sort(0).values for points in (x, self.exact[0]))
        return total_variation, kl, (sorted_x - sorted_exact).abs().mean().item()

    def floors(self) -> Tensor:
        """Return the three distances of each of ``FLOORS`` equally large sets of samples of the target itself."""
        return torch.tensor([self(x) for x in self.exact[1:]])


def between(log_p: Tensor, log_q: Tensor) -> tuple[float, float]:
    """Return total variation and ``KL(p || q)`` of two distributions over the cells."""
    p = log_p.exp()
    terms = torch.where(p > 0, p * (log_p - log_q), 0)
    return (p - log_q.exp()).abs().sum().item() / 2, terms.sum().item()


def cell_log_mass(powered: PoweredMixture) -> Tensor:
    """Return the log probability of each cell; the square holds all probability but 1e-14."""
    size = 2 * LIMIT / (CELLS * POINTS)
    axis = (torch.arange(CELLS * POINTS, dtype=torch.float64) + 0.5) * size - LIMIT
    points = torch.cartesian_prod(axis, axis)
    log_q = powered.log_density(points, torch.full((len(points),), LABEL)).log_softmax(0)
    return log_q.reshape(CELLS, POINTS, CELLS, POINTS).logsumexp((1, 3)).flatten()


def cell_shares(x: Tensor) -> Tensor:
    """Return the share of the points in each cell; points outside count in the nearest cell."""
    cells = ((x + LIMIT) / (2 * LIMIT) * CELLS).floor().clamp(0, CELLS - 1).long()
    return torch.bincount(cells[:, 0] * CELLS + cells[:, 1], minlength=CELLS**2) / len(x)


def methods(mixture: GaussianMixture, learnt: Denoise | None, powered: PoweredMixture) -> dict[str, Denoise]:
    """Return denoisers guided with the scale of ``powered``, by name. At 0 and 1 all exact ones are the same."""
    w, schedule = powered.scale, mixture.schedule
    found: dict[str, Denoise] = {"classifier-free": ClassifierFree(w)(mixture, schedule)}
    if w not in (0, 1):
        for base in ("unconditional", "conditional"):
            guidance = ClassifierGuidance(mixture.log_posterior, w, base)
            found[f"classifier, {base} base"] = guidance(mixture, schedule)
        found["ideal"] = powered
    if learnt is not None:
        found["network, classifier-free"] = ClassifierFree(w)(learnt, schedule)
    return found


def sample(denoise: Denoise, mixture: GaussianMixture, sampler: str, steps: int, noise: Tensor) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    labels = torch.full((len(noise),), LABEL)
    times = uniform_times(mixture.schedule, steps)
    with torch.no_grad():
        *_, last = SAMPLERS[sampler](
            denoise, mixture.schedule, noise, times, labels, lambda shape: torch.randn(shape, generator=generator)
        )
    return last.x.double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", nargs="?", help="checkpoint of a diffusion model trained on data=mixture")
    parser.add_argument("--num-samples", type=int, default=4000, help="samples in every run")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/ground_truth"))
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)

    model = load(arguments.checkpoint) if arguments.checkpoint else None
    schedule = model.schedule if model else Cosine()
    data = Patterns(["mixture_a", "mixture_b", "mixture_c"], 1, 1, noise=0.015, batch_size=1, validation_size=0)
    mixture = data.oracle(schedule)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(arguments.num_samples, 2, generator=generator, dtype=torch.float64)
    path = arguments.output_dir / "distances.csv"
    rows = read(path)
    guided: dict[float, dict[str, Denoise]] = {}
    plain = cell_log_mass(PoweredMixture(mixture, 1.0, FINENESS))
    for scale in SCALES:
        powered = PoweredMixture(mixture, scale, FINENESS)
        distance = Distance(powered, arguments.num_samples, generator)
        floors = distance.floors()
        for name, values in (("exact samples", floors.mean(0)), ("exact samples, largest", floors.amax(0))):
            rows[name, scale, "", 0] = Row(name, scale, "", 0, 0, *values.tolist(), arguments.num_samples, 0.0)
        rows["no guidance, exactly", scale, "", 0] = Row(
            "no guidance, exactly", scale, "", 0, 0, *between(plain, distance.log_mass), float("nan"), 0, 0.0
        )
        guided[scale] = methods(mixture, model.denoiser if model else None, powered)
        for (method, denoise), sampler, steps in product(guided[scale].items(), SAMPLERS, arguments.steps):
            key = (method, scale, sampler, steps)
            if key in rows or ("base" in method and steps > SHORT):
                continue
            start = perf_counter()
            x = sample(denoise, mixture, sampler, steps, noise.float() if "network" in method else noise)
            seconds = round(perf_counter() - start, 2)
            evaluations = 2 * steps - 1 if sampler == "heun" else steps
            rows[key] = Row(*key, evaluations, *distance(x), arguments.num_samples, seconds)
            print(*astuple(rows[key]), sep="  ", flush=True)
            write(list(rows.values()), path)
    write(sorted(rows.values(), key=lambda row: row.scale), path)
    plot_distances(list(rows.values()), arguments.output_dir / "distances.png")
    plot_samples(guided, mixture, noise[:3000], arguments.output_dir / "samples.png")


Key = tuple[str, float, str, int]
CONVERT = {"str": str, "float": float, "int": int}


def read(path: Path) -> dict[Key, Row]:
    """Return the rows that an earlier call has measured."""
    if not path.exists():
        return {}
    with path.open(newline="") as file:
        rows = [
            Row(*(CONVERT[str(field.type)](line[field.name]) for field in fields(Row))) for line in csv.DictReader(file)
        ]
    return {(row.method, row.scale, row.sampler, row.steps): row for row in rows}


def write(rows: list[Row], path: Path) -> None:
    with path.open("w", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([field.name for field in fields(Row)])
        table.writerows(
            [f"{value:.5g}" if isinstance(value, float) else value for value in astuple(row)] for row in rows
        )


def plot_distances(rows: list[Row], path: Path) -> None:
    """Plot total variation against steps: a panel per scale, a colour per sampler, a line style per method."""
    figure = Figure(figsize=(13, 3.9), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, len(SCALES), sharey=True)
    dashes = {"classifier-free": "-", "ideal": "--", "network, classifier-free": ":"}
    for axes, scale in zip(panels, SCALES, strict=True):
        of_scale = [row for row in rows if row.scale == scale]
        axes.axhline(
            next(row for row in of_scale if row.method == "exact samples").total_variation, color="grey", linewidth=1
        )
        for method, dash in dashes.items():
            for number, sampler in enumerate(SAMPLERS):
                points = [
                    (row.steps, row.total_variation)
                    for row in of_scale
                    if (row.method, row.sampler) == (method, sampler)
                ]
                if points:
                    axes.plot(*zip(*points, strict=True), dash, color=f"C{number}", marker="o", markersize=3)
        axes.set(title=f"w = {scale:g}", xlabel="steps", xscale="log", yscale="log")
        axes.set_xticks(STEPS, [str(steps) for steps in STEPS])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("total variation to p(x) p(y|x)^w")
    for name, style in {name: {"color": f"C{number}"} for number, name in enumerate(SAMPLERS)}.items():
        panels[0].plot([], [], label=name, **style)
    for method, dash in dashes.items():
        panels[0].plot([], [], dash, color="black", label=method)
    panels[0].plot([], [], color="grey", linewidth=1, label="exact samples")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", frameon=False)
    figure.savefig(path)


def plot_samples(guided: dict[float, dict[str, Denoise]], mixture: GaussianMixture, noise: Tensor, path: Path) -> None:
    """Plot samples over the contours of the target: a row per scale above 1, a column per method."""
    scales = [scale for scale in SCALES if scale > 1]
    names = [name for name in guided[scales[0]] if "base" not in name]
    figure = Figure(figsize=(3.3 * len(names) + 3.3, 2.4 * len(scales)), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    for panels, scale in zip(figure.subplots(len(scales), len(names) + 1), scales, strict=True):
        powered = PoweredMixture(mixture, scale, FINENESS)
        exact = powered.sample(torch.full((len(noise),), LABEL), torch.Generator().manual_seed(0))
        clouds = {"exact samples": exact} | {
            name: sample(guided[scale][name], mixture, "heun", 50, noise.float() if "network" in name else noise)
            for name in names
        }
        density = powered.density(LABEL).T
        levels = [density.max() * share for share in (0.05, 0.5)]
        for axes, (name, x) in zip(panels, clouds.items(), strict=True):
            axes.scatter(*x.T, s=1.5, alpha=0.4, linewidths=0)
            axes.contour(*powered.axes, density, levels=levels, colors="black", linewidths=0.8)
            axes.set(
                title=f"{name}, w = {scale:g}", xlim=(-1, 1), ylim=(-0.6, 0.6), aspect="equal", xticks=[], yticks=[]
            )
    figure.savefig(path)


if __name__ == "__main__":
    main()
