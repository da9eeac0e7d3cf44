"""Measure how much of this machine's arithmetic a network reaches: matrix products beside training and sampling.

In one process, in rounds, so that other programs and a changing clock meet all alike:

- the products of two square matrices, in float32 and in bfloat16: what the machine can do;
- the convolutions of the network one by one, at the sizes that they have in it, forward and with their backward, with
  the channels first and last: what its layers could do;
- a training step (loss, backward and the optimizer) and a sampling step (one evaluation of the conditional model, and
  DDIM's update): what the network does.

FLOPs are those of matrix products and convolutions alone, as ``torch.utils.flop_counter`` counts them; two for a
multiplication and an addition. A share is the rate over that of the matrix products in ``--precision`` in the same
round; the table has the best rate, the median rate, and the median share with its range.

    python benchmarks/ceiling.py --network unet_28_fast --batch-size 64 --precision bf16 --json ceiling.json
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from throughput import NETWORKS, NUM_CLASSES, load, shape_of
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from guided_diffusion.denoisers import Denoiser
from guided_diffusion.guidance import ClassifierFree
from guided_diffusion.losses import Uniform, denoising_loss, stratified_times
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, ddim
from guided_diffusion.schedules import Cosine
from guided_diffusion.training.optimizers import MuonWithAdamW, hidden_and_other
from guided_diffusion.utils.files import atomic_write
from guided_diffusion.utils.memory import keep_freed_memory

DTYPES = {"32": torch.float32, "bf16": torch.bfloat16}
PRODUCT = {"cpu": 2048, "cuda": 8192}
"""The side of the matrices on each kind of device."""
SAMPLING_STEPS = 2
OPTIMIZERS: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
    "adamw": lambda module: torch.optim.AdamW(module.parameters(), lr=1e-4, foreach=True),
    "muon": lambda module: MuonWithAdamW(hidden_and_other(module), lr=1e-4, adamw_lr=1e-4),
}


class Work(NamedTuple):
    """Something to time."""

    name: str
    run: Callable[[], object]
    flops: int


@dataclass(frozen=True)
class Rate:
    """The rate of a piece of work, in GFLOP/s, and its share of that of the matrix products in the same round."""

    name: str
    gflop: float
    """The number of floating-point operations, in 10^9."""
    best: float
    median: float
    share: float
    """The median over the rounds."""
    lowest_share: float
    highest_share: float


def counted(name: str, run: Callable[[], object]) -> Work:
    """Return a piece of work with its FLOPs, counted in a first run."""
    with FlopCounterMode(display=False) as counter:
        run()
    return Work(name, run, counter.get_total_flops())


def product(precision: str, device: torch.device, size: int) -> Work:
    """Return the product of two square matrices."""
    a, b = (torch.randn(size, size, device=device, dtype=DTYPES[precision]) for _ in range(2))
    return Work(product_name(precision), partial(torch.mm, a, b), 2 * size**3)


def product_name(precision: str) -> str:
    return {"32": "matrix products, float32", "bf16": "matrix products, bfloat16"}[precision]


class Model:
    """A network with an optimizer and a batch of random images: its training step and its sampling step."""

    def __init__(self, args: argparse.Namespace, device: torch.device) -> None:
        torch.manual_seed(0)
        self.device, self.autocast = device, args.precision == "bf16"
        self.shape = shape_of(args.network)
        self.denoiser = Denoiser(load(args.network).to(device), Cosine())
        self.optimizer = OPTIMIZERS[args.optimizer](self.denoiser)
        self.recipe = Recipe(ClassifierFree(1.0), sampler=Sampler(ddim, SAMPLING_STEPS), batch_size=args.batch_size)
        self.images = torch.randn(args.batch_size, *self.shape, device=device)
        self.labels = torch.randint(NUM_CLASSES, (args.batch_size,), device=device)
        self.times = stratified_times(args.batch_size, torch.Generator(device).manual_seed(0))

    def train(self) -> None:
        noise = torch.randn_like(self.images)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            loss = denoising_loss(self.denoiser, self.images, self.labels, self.times, noise, Uniform()).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def sample(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            self.recipe.sample(self.denoiser, self.labels, self.shape)

    def convolutions(self) -> Counter[tuple[nn.Module, torch.Size]]:
        """Return the convolutions of the network, each with the shape of its input and how often it runs."""
        found: Counter[tuple[nn.Module, torch.Size]] = Counter()
        kinds = nn.Conv2d, nn.ConvTranspose2d
        hooks = [
            layer.register_forward_hook(lambda layer, inputs, _: found.update([(layer, inputs[0].shape)]))
            for layer in self.denoiser.modules()
            if isinstance(layer, kinds)
        ]
        with torch.no_grad():
            self.denoiser(self.images, self.times, self.labels)
        for hook in hooks:
            hook.remove()
        return found


def convolutions(model: Model, precision: str, channels_last: bool, backward: bool) -> Work | None:
    """Return the convolutions of a network at its sizes, one after the other; None if it has none."""
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    layers: list[tuple[nn.Module, Tensor]] = []
    for (layer, shape), count in model.convolutions().items():
        settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")}
        fresh = type(layer)(layer.in_channels, layer.out_channels, layer.kernel_size, bias=False, **settings)
        fresh = fresh.to(model.device, DTYPES[precision]).to(memory_format=memory_format)
        x = torch.randn(shape, device=model.device, dtype=DTYPES[precision]).contiguous(memory_format=memory_format)
        layers += [(fresh, x.requires_grad_(backward))] * count

    def run() -> None:
        with torch.set_grad_enabled(backward):
            for layer, x in layers:
                y = layer(x)
                if backward:
                    x.grad = layer.weight.grad = None
                    y.backward(y.detach())

    what = "forward and backward" if backward else "forward"
    name = f"its convolutions, {what}, channels {'last' if channels_last else 'first'}"
    return counted(name, run) if layers else None


def rates(works: list[Work], reference: str, rounds: int, device: torch.device) -> list[Rate]:
    """Return the rates of all pieces of work; in each round each runs once, after one round of warm-up."""
    taken: dict[str, list[float]] = {work.name: [] for work in works}
    for _ in range(1 + rounds):
        for work in works:
            start = time.perf_counter()
            work.run()
            if device.type == "cuda":
                torch.cuda.synchronize()
            taken[work.name].append(work.flops / 1e9 / (time.perf_counter() - start))
    of_round = {name: values[1:] for name, values in taken.items()}
    return [_rate(work, of_round[work.name], of_round[reference]) for work in works]


def _rate(work: Work, values: list[float], reference: list[float]) -> Rate:
    shares = [value / full for value, full in zip(values, reference, strict=True)]
    return Rate(
        work.name,
        work.flops / 1e9,
        max(values),
        statistics.median(values),
        statistics.median(shares),
        min(shares),
        max(shares),
    )


def measure(args: argparse.Namespace) -> list[Rate]:
    """Measure everything for the network that the command line names."""
    device = torch.device(args.device)
    size = args.size or PRODUCT[device.type]
    model = Model(args, device)
    layers = [
        convolutions(model, args.precision, channels_last, backward)
        for backward in (False, True)
        for channels_last in (False, True)
    ]
    works = [
        *(product(precision, device, size) for precision in DTYPES),
        *(work for work in layers if work),
        counted("a training step", model.train),
        counted(f"{SAMPLING_STEPS} sampling steps", model.sample),
    ]
    return rates(works, product_name(args.precision), args.rounds, device)


def table(found: list[Rate]) -> str:
    """Return the rates as a Markdown table."""
    rows = [
        f"| {one.name} | {one.gflop:.1f} | {one.best:.0f} | {one.median:.0f} "
        f"| {one.share:.2f} ({one.lowest_share:.2f} to {one.highest_share:.2f}) |"
        for one in found
    ]
    return "\n".join(["| | GFLOP | best GFLOP/s | median GFLOP/s | share |", "|---|---|---|---|---|", *rows])


def about(args: argparse.Namespace) -> dict[str, Any]:
    """Return what the rates depend on."""
    return {
        "network": args.network,
        "batch_size": args.batch_size,
        "precision": args.precision,
        "optimizer": args.optimizer,
        "device": torch.cuda.get_device_name(args.device) if args.device.startswith("cuda") else args.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "rounds": args.rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=NETWORKS, default="unet_28_fast")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--precision", choices=DTYPES, default="bf16")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--size", type=int, help=f"the side of the matrices, by default {PRODUCT}")
    parser.add_argument("--json", type=Path, help="also write the rates into this file")
    args = parser.parse_args()
    if min(args.batch_size, args.rounds, args.size or 1) < 1:
        parser.error("--batch-size, --rounds and --size must be at least 1")
    keep_freed_memory()

    found = measure(args)
    settings = about(args)
    print(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in settings.items()), file=sys.stdout)
    print("\n" + table(found))
    if args.json:
        with atomic_write(args.json) as temporary:
            content = settings | {"rates": [asdict(one) for one in found]}
            temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
