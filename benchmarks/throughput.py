"""Measure how fast our networks train and sample on this machine.

For each network, prints the medians over repeats of

- training images/s: denoising loss, backward pass and a fused AdamW step;
- network evaluations/s: images through the denoiser, without gradients;
- guided samples/s: a whole run of DDIM with 25 steps and classifier-free guidance at w = 2, which takes two
  evaluations per step.

The networks are those of ``conf/network``. The data are random numbers of the right shape.

    python benchmarks/throughput.py --networks unet_8 unet_28_small --precision bf16
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from omegaconf import OmegaConf
from torch import nn

from guided_diffusion.checkpoints.record import build_network
from guided_diffusion.denoisers import Denoiser
from guided_diffusion.guidance import ClassifierFree
from guided_diffusion.losses import Uniform, denoising_loss, stratified_times
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, ddim
from guided_diffusion.schedules import Cosine

FOLDER = Path(__file__).parents[1] / "conf" / "network"
NETWORKS = sorted(path.stem for path in FOLDER.glob("unet_*.yaml"))
"""The denoisers of images in ``conf/network``."""
NUM_CLASSES = 10
SHAPES = {"8": (1, 8, 8), "28": (1, 28, 28), "32": (3, 32, 32), "cifar10": (3, 32, 32)}
"""The shape of the images that a network is made for, by the second word of its name."""


def shape_of(name: str) -> tuple[int, int, int]:
    """Return the shape of the images that a network is made for."""
    return SHAPES[name.split("_")[1]]


def load(name: str) -> nn.Module:
    """Return the network of ``conf/network/<name>.yaml``."""
    return build_network(OmegaConf.load(FOLDER / f"{name}.yaml"), shape_of(name), NUM_CLASSES)


def seconds(run: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the median time of a run in seconds, after two warm-up runs."""
    times = []
    for _ in range(2 + repeats):
        start = time.perf_counter()
        run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def measure(name: str, args: argparse.Namespace) -> tuple[float, ...]:
    """Return the parameters in millions, then trained images, evaluations and samples per second."""
    torch.manual_seed(0)
    device = torch.device(args.device)
    memory_format = torch.channels_last if args.channels_last else torch.preserve_format
    network = load(name).to(device, memory_format=memory_format)
    parameters = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    if args.compile:
        network.compile()
    denoiser = Denoiser(network, Cosine())
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4, fused=True)
    recipe = Recipe(ClassifierFree(2.0), sampler=Sampler(ddim, 25), batch_size=args.batch_size)

    images = torch.randn(args.batch_size, *shape_of(name), device=device).to(memory_format=memory_format)
    labels = torch.randint(NUM_CLASSES, (args.batch_size,), device=device)
    generator = torch.Generator(device).manual_seed(0)
    times = stratified_times(args.batch_size, generator)

    def autocast() -> torch.autocast:
        return torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16")

    def train() -> None:
        with autocast():
            loss = denoising_loss(denoiser, images, labels, times, torch.randn_like(images), Uniform()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    def evaluate() -> None:
        with torch.no_grad(), autocast():
            denoiser(images, times, labels)

    def sample() -> None:
        with autocast():
            recipe.sample(denoiser, labels, images.shape[1:])

    rates = [
        args.batch_size / seconds(run, repeats, device)
        for run, repeats in ((train, args.repeats), (evaluate, args.repeats), (sample, args.sample_repeats))
    ]
    return parameters, *rates


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=["unet_8", "unet_28_small", "unet_cifar10"])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=10, help="repeats of a training step and of an evaluation")
    parser.add_argument("--sample-repeats", type=int, default=3, help="repeats of a whole sampling run")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()

    print(f"torch {torch.__version__}, {args.device}, {torch.get_num_threads()} CPU threads, batch {args.batch_size},")
    print(f"precision {args.precision}, channels last {args.channels_last}, compiled {args.compile}\n")
    print(f"{'network':<14} {'M parameters':>12} {'trained/s':>11} {'evaluated/s':>12} {'sampled/s':>11}")
    for name in args.networks:
        parameters, trained, evaluated, sampled = measure(name, args)
        print(f"{name:<14} {parameters:12.2f} {trained:11.1f} {evaluated:12.1f} {sampled:11.2f}", flush=True)


if __name__ == "__main__":
    main()
