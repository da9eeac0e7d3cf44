"""Measure the quality of samples after 1, 2, 4 and 8 minutes of training on one core: our recipes and two others.

The contestants:

- ``ours``, ``ours_cfg``: the experiments ``guided_mnist`` and ``cfg_mnist``, with other numbers of steps;
- ``diffusers``: a training as diffusers' example of unconditional generation does it, made class-conditional and
  scaled to 28x28 (``contestants/diffusers_example.py``);
- ``teapearce``: the conditional MNIST lesson of T. Pearce (``contestants/teapearce.py``), and ``teapearce_64``, the
  same in batches of 64.

Equal for all: the training images, the budget, one thread, the judge, the labels, the number of samples. A budget is
processor time. As learning rates fall over a whole training, each budget is a training of its own. How many steps fit
into it is measured first; that is not counted, nor is sampling. Ours counts from the call of the training to a model
that is ready to sample, with reading the data, validation and a classifier that its guidance needs; the others count
their steps only, and run in whichever of float32 and bfloat16, channels first and channels last, is fastest. The others
sample by DPM-Solver++(2M) with 25 steps, which is kinder to them than their own samplers of 1000 and 400 steps are to
your patience; ``--peer-sampler ddpm --peer-steps 1000`` takes those. Every contestant has several guidance scales, and
each measure is taken at the best one.

Each finished training is kept in ``--results``: the same command goes on after an interruption.

    OMP_NUM_THREADS=1 python benchmarks/time_to_quality.py --results outputs/time_to_quality.json
    python benchmarks/time_to_quality.py --results outputs/time_to_quality.json --plot docs/figures/time_to_quality.png
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from contestants.base import Calibration, Contestant, Settings, Trained
from contestants.diffusers_example import diffusers_example
from contestants.ours import Ours
from contestants.teapearce import teapearce
from quality_results import Measured, Results, Run, plot, read, start, table, verdicts

from guided_diffusion.cli.config import compose
from guided_diffusion.data import ImageDataModule
from guided_diffusion.evaluation.judge import Judge
from guided_diffusion.evaluation.metrics.images import Reference, measure
from guided_diffusion.evaluation.plan import LabelledSamples
from guided_diffusion.evaluation.proportions import apportion, interleave
from guided_diffusion.samplers import Sampler, ddim, ddpm, dpmpp_2m
from guided_diffusion.utils.instantiate import build
from guided_diffusion.utils.memory import keep_freed_memory

CONTESTANTS: dict[str, Contestant] = {
    "ours": Ours("guided_mnist"),
    "ours_cfg": Ours("cfg_mnist"),
    "diffusers": diffusers_example(),
    "teapearce": teapearce(),
    "teapearce_64": teapearce(batch_size=64),
}
SAMPLERS = {"dpmpp_2m": dpmpp_2m, "ddim": ddim, "ddpm": partial(ddpm, variance=1.0)}


class Examiner:
    """The judge, the real images and the labels with which all contestants are measured."""

    def __init__(self, data: ImageDataModule, judge: Judge, samples: int, seed: int) -> None:
        self.judge, self.shape, self.seed = judge, data.shape, seed
        self.labels = interleave(apportion(samples, data.class_counts("test")))
        self.reference = Reference.of(data, judge, samples, seed)

    def measured(self, trained: Trained, scale: float) -> Measured:
        """Draw samples at one scale and measure them."""
        images = trained.sample(self.labels, self.shape, scale, self.seed)
        found = measure(LabelledSamples(images, self.labels, torch.zeros(len(images))), self.reference, self.judge)
        return Measured(scale, *found.measured["accuracy"], found.measured["fld"].value, self.reference.floor)


def calibration_of(name: str, data: ImageDataModule, settings: Settings, results: Results, path: Path) -> Calibration:
    """Return the calibration of a contestant, from the results or measured now and kept there."""
    if name not in results.calibrations:
        results.calibrations[name] = CONTESTANTS[name].calibrate(data, settings)
        results.save(path)
    found = results.calibrations[name]
    print(
        f"{name}: {1000 * found.seconds_per_step:.1f} ms a step and {found.fixed_seconds:.1f} s besides, "
        f"{'bfloat16' if found.autocast else 'float32'}{', channels last' if found.channels_last else ''}",
        flush=True,
    )
    return found


def run(
    name: str, minutes: float, data: ImageDataModule, examiner: Examiner, settings: Settings, calibration: Calibration
) -> Run:
    """Train a contestant for a budget and measure it at each of its scales."""
    trained = CONTESTANTS[name].train(data, settings, calibration.steps(60 * minutes), calibration)
    begin = time.process_time()
    rows = [examiner.measured(trained, scale) for scale in trained.scales]
    return Run(
        contestant=name,
        minutes=minutes,
        seconds=trained.seconds,
        steps=trained.steps,
        batch_size=trained.batch_size,
        parameters=trained.parameters,
        sampling_seconds=time.process_time() - begin,
        measured=rows,
    )


def contest(args: argparse.Namespace) -> Results:
    """Run what the results file lacks, and return all results."""
    settings = Settings(args.overrides, args.seed, Sampler(SAMPLERS[args.peer_sampler], args.peer_steps))
    names = ("samples", "seed", "peer_sampler", "peer_steps", "overrides")
    results = start(args.results, {name: getattr(args, name) for name in names})
    missing = [
        (name, minutes) for name in args.contestants for minutes in args.minutes if not results.find(name, minutes)
    ]
    if not missing:
        return results
    config = compose("data=mnist", *args.overrides)
    data: ImageDataModule = build(config.data)
    data.prepare_data()
    examiner = Examiner(data, build(config.judge)(data), args.samples, args.seed)
    for name, minutes in missing:
        calibration = calibration_of(name, data, settings, results, args.results)
        done = run(name, minutes, data, examiner, settings, calibration)
        results.runs.append(done)
        results.save(args.results)
        print(f"{name}, {minutes:g} min: {done.seconds:.0f} s, {done.steps} steps; {_qualities(done)}", flush=True)
    return results


def _qualities(done: Run) -> str:
    return "; ".join(f"w = {row.scale:g}: {row.accuracy:.2%}, {row.ratio:.2f} floors" for row in done.measured)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contestants", nargs="+", choices=CONTESTANTS, default=list(CONTESTANTS))
    parser.add_argument("--minutes", nargs="+", type=float, default=[1.0, 2.0, 4.0, 8.0])
    parser.add_argument("--samples", type=int, default=2000, help="the number of samples at each guidance scale")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--peer-sampler", choices=SAMPLERS, default="dpmpp_2m")
    parser.add_argument("--peer-steps", type=int, default=25)
    parser.add_argument("--overrides", nargs="*", default=[], help="overrides of data, judge and our trainings")
    parser.add_argument("--results", type=Path, default=Path("outputs/time_to_quality.json"))
    parser.add_argument("--plot", type=Path, help="draw the figure of the results into this file, and run nothing")
    args = parser.parse_args(arguments)
    if min(*args.minutes, args.samples, args.peer_steps) <= 0:
        parser.error("--minutes, --samples and --peer-steps must be positive")
    return args


def main() -> None:
    args = parse(sys.argv[1:])
    torch.set_num_threads(1)
    keep_freed_memory()
    try:
        results = read(args.results) if args.plot else contest(args)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    if args.plot:
        plot(results, args.plot)
    print("\n" + table(results))
    for sentence in verdicts(results):
        print(sentence)


if __name__ == "__main__":
    main()
