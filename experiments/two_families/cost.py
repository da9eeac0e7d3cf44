"""Measure the processor time of a sample with each family of guidance.

    python experiments/two_families/cost.py DIFFUSION CLASSIFIER [--num-samples 50] [--output-dir FOLDER]

Set ``OMP_NUM_THREADS=1``: the processor time of one thread depends little on other programs. Every round samples once
with each method; ``cost.csv`` has the fastest round of each method and its ratio to w = 1.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from time import process_time

import torch

from guided_diffusion import load
from guided_diffusion.checkpoints.loading import load_classifier
from guided_diffusion.evaluation.results import write_csv
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance, Guidance
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler
from guided_diffusion.utils.precision import fast_precision

ROUNDS = 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("diffusion", help="checkpoint of a diffusion model")
    parser.add_argument("classifier", help="checkpoint of a time-aware classifier")
    parser.add_argument("--num-samples", type=int, default=50)
    parser.add_argument("--steps", type=int, default=25, help="DDIM steps")
    parser.add_argument("--output-dir", type=Path, default=Path("outputs/two_families"))
    arguments = parser.parse_args()

    model, classifier = load(arguments.diffusion), load_classifier(arguments.classifier)
    methods: dict[str, Guidance] = {
        "no guidance (w = 1)": ClassifierFree(1.0),
        "classifier-free": ClassifierFree(2.0),
        "classifier, conditional base": ClassifierGuidance(classifier, 2.0, "conditional"),
        "classifier, unconditional base": ClassifierGuidance(classifier, 2.0, "unconditional"),
    }
    labels = torch.arange(arguments.num_samples) % model.num_classes
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    with torch.autocast("cpu", torch.bfloat16, enabled=fast_precision("cpu") == "bf16-mixed"):
        for _ in range(ROUNDS):
            for name, guidance in methods.items():
                start = process_time()
                Recipe(guidance, sampler=Sampler(steps=arguments.steps)).sample(model.denoiser, labels, model.shape)
                seconds[name].append((process_time() - start) / arguments.num_samples * 1000)
    plain = min(seconds["no guidance (w = 1)"])
    rows = [
        {"method": name, "seconds_per_1000": min(rounds), "ratio": min(rounds) / plain}
        for name, rounds in seconds.items()
    ]
    write_csv(arguments.output_dir / "cost.csv", rows)
    for row in rows:
        print(*row.values(), sep="  ")


if __name__ == "__main__":
    main()
