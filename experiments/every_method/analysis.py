"""Compare every guidance on the exact mixture: distance to p(x) p(y|x)^w, effective scale, and a picture of samples.

    python experiments/every_method/analysis.py [--output-dir FOLDER] [--num-samples 2000] [--steps 50] [NAMES ...]

The data is that of ``data=mixture``; one class is sampled at w = 2 by Heun's method, from the same noise in every run.
NAMES are options of ``conf/guidance`` and ``conf/sampler``; without any, all that can guide the exact denoiser. Writes
``methods.csv`` and a picture for each page of docs/methods.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1] / "ground_truth"))

from ground_truth import CELLS, FINENESS, LABEL, LIMIT, Distance, between, cell_log_mass, cell_shares

from guided_diffusion.cli.config import CONFIG_PATH
from guided_diffusion.data import Patterns
from guided_diffusion.denoisers import Denoise
from guided_diffusion.evaluation.effective_scale import EffectiveScale, ScaleMeter, mean_of
from guided_diffusion.guidance import ClassifierFree, Guidance, NoThreshold
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture
from guided_diffusion.oracles.powered_mixture import PoweredMixture
from guided_diffusion.samplers import SampleNoise, Step, heun, uniform_times
from guided_diffusion.schedules import Cosine
from guided_diffusion.utils.instantiate import build

SCALE = 2.0
ROOMS = {
    "scale_in_time": ("interval", "schedule", "power_law", "mambo", "cfgpp", "adaptive", "feedback"),
    "weak_models": ("autoguidance", "icg", "self_guidance", "composition"),
    "difference": ("apg", "cfg_zero_star", "tcfg", "adg", "momentum", "tsr"),
    "classifiers": ("classifier", "cfg_classifier", "joint_temperature", "adam_classifier", "reconstruction"),
    "samplers": ("pcg", "gibbs", "feynman_kac", "twisted"),
}
"""The methods of each picture."""
SETTINGS: dict[str, dict[str, object]] = {
    "cfgpp": {"scale": 0.1},
    "composition": {"classes": [1], "scales": [-0.5]},
    "feynman_kac": {"particles": 16},
    "twisted": {"particles": 16},
}
"""Settings other than the defaults: those that the plane needs, and strengths that are near w = 2 there."""
WIDER = 1.5
"""The factor of the covariances of the weak model of ``autoguidance``."""


@dataclass(frozen=True)
class Run:
    """The samples of one method."""

    name: str
    samples: Tensor
    evaluations: float
    effective: EffectiveScale | None


class Counting:
    """A denoiser that counts its evaluations."""

    def __init__(self, mixture: GaussianMixture) -> None:
        self.mixture = mixture
        self.num_classes = mixture.num_classes
        self.count = 0

    def __call__(self, x_t: Tensor, t: Tensor, y: Tensor | None) -> object:
        self.count += len(x_t)
        return self.mixture(x_t, t, y)


def node_of(group: str, name: str) -> dict[str, object] | None:
    path = Path(CONFIG_PATH, group, f"{name}.yaml")
    return OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else None  # type: ignore[return-value]


def guidance_of(name: str, mixture: GaussianMixture) -> Guidance:
    """Return an option of ``conf/guidance`` with the exact classifier, and a wider mixture as the weak model."""
    node = node_of("guidance", name) | {"scale": SCALE} | SETTINGS.get(name, {})  # type: ignore[operator]
    guidance = build({key: None if key in ("classifier", "weak") else value for key, value in node.items()})
    if guidance.needs_classifier:
        guidance = guidance.with_classifier(mixture.log_posterior)
    if "weak" in node:
        guidance = guidance.with_weak(replace(mixture, covariances=WIDER * mixture.covariances))
    return guidance


def runs(names: list[str], mixture: GaussianMixture, count: int, steps: int) -> Iterator[Run]:
    """Yield the run of each method, from the same noise."""
    for name in names:
        sampler: Callable[..., Iterator[Step]] = heun
        guidance: Guidance = ClassifierFree(SCALE)
        if node_of("guidance", name):
            guidance = guidance_of(name, mixture)
        elif name != "cfg":
            method = node_of("sampler", name)["method"] | SETTINGS.get(name, {})  # type: ignore[index, operator]
            sampler = build(method)
            guidance = guidance_of("reconstruction", mixture) if name == "twisted" else guidance
        yield run(name, guidance, sampler, mixture, count, steps)


def run(
    name: str,
    guidance: Guidance,
    sampler: Callable[..., Iterator[Step]],
    mixture: GaussianMixture,
    count: int,
    steps: int,
) -> Run:
    """Sample, and once more with the meter of the effective scale where the sampler evaluates the guidance only."""
    schedule, draw, model = mixture.schedule, SampleNoise(0, range(count)), Counting(mixture)
    labels, times = torch.full((count,), LABEL), uniform_times(mixture.schedule, steps)

    def sampled(denoise: Denoise) -> Tensor:
        noise = draw((count, 2)).double()
        *_, last = sampler(denoise, schedule, noise, times, labels, SampleNoise(1, range(count)))
        return last.x

    with torch.no_grad():
        samples = sampled(guidance(model, schedule))
        found: list[EffectiveScale] = []
        if sampler is heun:
            draw = SampleNoise(0, range(count))
            sampled(ScaleMeter(NoThreshold(), mixture, found.append)(guidance(mixture, schedule), schedule))
    return Run(name, samples, model.count / count, mean_of(found) if found else None)


def row(one: Run, distance: Distance, of_cfg: Tensor) -> dict[str, object]:
    """Return the row of ``methods.csv``: distances to the target and to the samples of classifier-free guidance."""
    to_target, _, sliced = distance(one.samples)
    to_cfg, _ = between(cell_shares(one.samples).log(), of_cfg.clamp(min=1e-12).log())
    values = {"method": one.name, "evaluations": one.evaluations, "total_variation": to_target}
    values |= {"sliced_wasserstein": sliced, "total_variation_to_cfg": to_cfg}
    if one.effective:
        values |= {"effective_scale": one.effective.scale.nanmean().item()}
        values |= {"residual": one.effective.residual.nanmean().item()}
    return values


def plot(path: Path, found: dict[str, Run], names: tuple[str, ...], mass: Tensor, rows: dict[str, dict]) -> None:
    """Draw the exact target, classifier-free guidance and each method, over the contours of the target."""
    shown = ["target", "cfg", *(name for name in names if name in found)]
    columns = min(4, len(shown))
    height = -(-len(shown) // columns)
    figure = Figure(figsize=(2.6 * columns, 1.9 * height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(height, columns, squeeze=False, sharex=True, sharey=True).flat)
    for axes, name in zip(panels, shown, strict=False):
        draw_panel(axes, name, found[name].samples, mass)
        axes.set_title(f"{name}: {rows[name]['total_variation']:.3f}", fontsize=9)
    for axes in panels[len(shown) :]:
        axes.axis("off")
    figure.savefig(path)


def draw_panel(axes: Axes, name: str, samples: Tensor, mass: Tensor) -> None:
    centres = (torch.arange(CELLS) + 0.5) * 2 * LIMIT / CELLS - LIMIT
    density = mass.exp().reshape(CELLS, CELLS).T
    axes.contour(centres, centres, density, levels=density.max() * torch.tensor([0.05, 0.3, 0.7]), linewidths=0.7)
    axes.scatter(*samples.T, s=1, alpha=0.5, color="tab:red" if name != "target" else "tab:blue", linewidths=0)
    axes.set(xlim=(-0.8, 0.8), ylim=(-0.5, 0.5), aspect="equal", xticks=[], yticks=[])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="options of conf/guidance and conf/sampler")
    parser.add_argument("--num-samples", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/every_method"))
    arguments = parser.parse_args()
    arguments.output_dir.mkdir(parents=True, exist_ok=True)

    data = Patterns(["mixture_a", "mixture_b", "mixture_c"], 1, 1, noise=0.015, batch_size=1, validation_size=0)
    mixture = data.oracle(Cosine())
    powered = PoweredMixture(mixture, SCALE, FINENESS)
    distance = Distance(powered, arguments.num_samples, torch.Generator().manual_seed(0))
    found = {"target": Run("target", distance.exact[1], 0, None)}
    rows: dict[str, dict[str, object]] = {}
    names = arguments.names or [name for room in ROOMS.values() for name in room]
    for one in runs(["cfg", *names], mixture, arguments.num_samples, arguments.steps):
        found[one.name] = one
        rows[one.name] = row(one, distance, cell_shares(found["cfg"].samples))
        print(*rows[one.name].values(), sep="  ", flush=True)
    rows["target"] = row(found["target"], distance, cell_shares(found["cfg"].samples))
    columns = list(rows["cfg"])
    with (arguments.output_dir / "methods.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        for values in rows.values():
            table.writerow({key: f"{one:.4g}" if isinstance(one, float) else one for key, one in values.items()})
    mass = cell_log_mass(powered)
    for room, of_room in ROOMS.items():
        if any(name in found for name in of_room):
            plot(arguments.output_dir / f"{room}.png", found, of_room, mass, rows)


if __name__ == "__main__":
    main()
