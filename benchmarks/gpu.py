r"""Measure trainings, sampling and strategies on one GPU, in at most 8 minutes, into one JSON file.

The parts, in this order; each runs in a process of its own with a time limit, so that a crash or a hang ends that part
alone, and the file is written again after each:

- ``device``: the name of the device, versions, the rate of 8192^3 matrix products, and of copies in its memory;
- ``mnist``: a training on MNIST and its evaluation, with the recipe ``guided_mnist`` if there is one, else
  ``cfg_mnist``, or the digits that ship with scikit-learn if MNIST is not at hand: seconds, and accuracy and distance
  beside its floor at each scale;
- ``waits``: where sampling makes the host wait for the device, by ``torch.cuda.set_sync_debug_mode``, for each guidance
  and each sampler;
- ``graphs``: samples per second with the denoiser in a CUDA graph (``torch.cuda.graph``) against without one;
- ``strategies``: whether ``strategy=ddp`` and ``strategy=fsdp`` train 20 steps on one device, and whether their
  checkpoints load;
- ``cifar10``: training steps of ``unet_cifar10`` alone, with their share of the device's peak, and a training with
  ``cfg_cifar10`` in bfloat16, compiled, channels last: images per second and losses. Random images take the place of
  CIFAR-10 if it is not at hand.

Nothing is downloaded. At hand must be a checkout with the package installed, or with its folder in ``PYTHONPATH``, and
in ``--data`` or ``GUIDED_DIFFUSION_DATA`` the folders ``MNIST`` and ``cifar-10-batches-py`` in torchvision's layout.
The first command below makes wheels of what a machine with PyTorch and Lightning but without a network may lack:

    pip wheel --no-deps -w wheels hydra-core omegaconf "antlr4-python3-runtime==4.9.*" beartype platformdirs \
        imageio-ffmpeg
    python benchmarks/gpu.py --out gpu.json --minutes 8
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

import guided_diffusion
from guided_diffusion.checkpoints.record import build_network
from guided_diffusion.classifiers import Classifier
from guided_diffusion.denoisers import Denoiser, Labels, Prediction
from guided_diffusion.guidance import ClassifierFree, ClassifierGuidance, Combined, Guidance, LimitedInterval
from guided_diffusion.losses import Uniform, denoising_loss, stratified_times
from guided_diffusion.networks import NoisyClassifier
from guided_diffusion.recipe import Recipe
from guided_diffusion.samplers import Sampler, ddim, ddpm, dpmpp_2m, heun, sde_dpmpp_2m
from guided_diffusion.schedules import Cosine

ROOT = Path(__file__).parents[1]
PACKAGE = Path(guided_diffusion.__file__).parent
PEAKS = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12}
"""The dense bfloat16 FLOP/s of the data sheets, by a part of the device's name; the first that occurs counts."""
NUM_CLASSES = 10
SHAPES = {"unet_8": (1, 8, 8), "unet_28_small": (1, 28, 28), "unet_cifar10": (3, 32, 32)}
"""The shapes of the images of the networks that the parts use."""
GOAL = 0.995
"""The judge's accuracy that the part ``mnist`` looks for."""
CIFAR10_FILES = ("batches-py", "python.tar.gz")
"""The ends of the names under which CIFAR-10 may be at hand."""
Found = Iterator[dict[str, Any]]
"""The results of a part, in pieces: what it yielded before it failed is kept."""


# Parts. Each yields pieces of its result.


def device(args: argparse.Namespace) -> Found:
    yield {"torch": torch.__version__, "python": platform.python_version(), "cpus": os.cpu_count()}
    if args.device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        yield {
            "name": properties.name,
            "gigabytes": round(properties.total_memory / 2**30, 1),
            "multiprocessors": properties.multi_processor_count,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    yield {"matrix_flops": {str(dtype): matrix_rate(args, dtype) for dtype in (torch.bfloat16, torch.float32)}}
    source = torch.zeros(2**20 if args.small else 2**31, dtype=torch.uint8, device=args.device)
    target = torch.empty_like(source)
    yield {"copied_bytes_per_second": 2 * len(source) / seconds(lambda: target.copy_(source), args, repeats=10)}


def mnist(args: argparse.Namespace) -> Found:
    has_mnist = args.data is not None and (args.data / "MNIST" / "raw").is_dir() and not args.small
    recipe = "guided_mnist" if (ROOT / "conf" / "experiment" / "guided_mnist.yaml").is_file() else "cfg_mnist"
    recipe = recipe if has_mnist else "cfg_digits"
    few = ["network.width=8", "judge.steps=2", "judge.width=8", "callbacks.accuracy.num_samples=20", *FEW_STEPS]
    folder = args.folder / "mnist"
    command = program("train", folder, args, f"+experiment={recipe}", *(few if args.small else ()))
    yield {"recipe": recipe, "command": " ".join(command)}
    wall, progress = watch(command, folder, args)
    yield {"wall_seconds_of_training": wall, "progress": progress, "losses": losses(folder)}

    evaluation = args.folder / "mnist_evaluation"
    checkpoint = f"checkpoint={folder / 'checkpoints' / 'last.ckpt'}"
    number_of_samples = ["num_samples=4", *few[1:3]] if args.small else ["num_samples=500", "recipe.batch_size=1000"]
    command = program("evaluate", evaluation, args, checkpoint, *number_of_samples)
    wall, _ = watch(command, evaluation, args)
    with (evaluation / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = ("method", "sampler", "steps", "scale", "num_samples", "accuracy", "fld", "fld_floor", "nfe", "seconds")
    scales = [{name: number(row.get(name)) for name in names} for row in rows]
    reached = [row["scale"] for row in scales if isinstance(row["accuracy"], float) and row["accuracy"] >= GOAL]
    yield {"wall_seconds_of_evaluation": wall, "scales": scales, "scales_with_the_goal": reached}


def waits(args: argparse.Namespace) -> Found:
    needs_cuda(args)
    denoiser, labels = random_denoiser("unet_28_small", args), torch.arange(20, device=args.device) % NUM_CLASSES
    network = NoisyClassifier(1, 28, NUM_CLASSES, width=32, multipliers=(1, 2))
    classifier = Classifier(network, denoiser.schedule).to(args.device).requires_grad_(False)
    per_sample = torch.linspace(0, 4, len(labels)).round()
    settings: dict[str, tuple[Guidance, Callable[..., Any]]] = {
        "cfg": (ClassifierFree(2.0), ddim),
        "cfg, a scale per sample": (ClassifierFree(per_sample), ddim),
        "interval": (LimitedInterval(2.0), ddim),
        "classifier": (ClassifierGuidance(classifier, 2.0), ddim),
        "classifier, a scale per sample": (ClassifierGuidance(classifier, per_sample), ddim),
        "classifier, between noise levels": (ClassifierGuidance(classifier, 2.0, "conditional", sigma_hi=1.5), ddim),
        "cfg_classifier": (Combined(classifier, 2.0, 2.0), ddim),
        "cfg, ddpm": (ClassifierFree(2.0), ddpm),
        "cfg, heun": (ClassifierFree(2.0), heun),
        "cfg, dpmpp_2m": (ClassifierFree(2.0), dpmpp_2m),
        "cfg, sde_dpmpp_2m": (ClassifierFree(2.0), sde_dpmpp_2m),
    }
    for name, (guidance, method) in settings.items():
        recipe = Recipe(guidance, sampler=Sampler(method, 4))
        yield {name: attempt(lambda recipe=recipe: waiting_places(recipe, denoiser, labels))}


def graphs(args: argparse.Namespace) -> Found:
    needs_cuda(args)
    yield {"method": "torch.cuda.graph around the denoiser; DDIM, 25 steps, cfg with w = 2"}
    denoiser = random_denoiser("unet_cifar10", args)
    for precision, batch_size in (("bf16", 16), ("32", 16), ("bf16", 256)):
        recipe = Recipe(ClassifierFree(2.0), sampler=Sampler(ddim, 25), batch_size=batch_size)
        labels = torch.arange(batch_size, device=args.device) % NUM_CLASSES
        autocast = partial(torch.autocast, "cuda", torch.bfloat16, enabled=precision == "bf16")
        images, rates = [], []
        for one in (denoiser, Graphed(denoiser, 2 * batch_size, (3, 32, 32), autocast)):
            with autocast():
                sample = partial(recipe.sample, one, labels, (3, 32, 32))
                images.append(sample())
                rates.append(batch_size / seconds(sample, args, repeats=3))
        difference = (images[0] - images[1]).abs().max().item()
        result = {"without_per_second": rates[0], "with_per_second": rates[1], "largest_difference": difference}
        yield {
            f"{precision}, batch {batch_size}": result | {"same": difference < (0.05 if precision == "bf16" else 1e-3)}
        }


def strategies(args: argparse.Namespace) -> Found:
    for name in ("ddp", "fsdp"):
        if name == "fsdp" and args.device != "cuda":
            yield {name: {"skipped": "needs CUDA"}}
        else:
            yield {name: attempt(lambda name=name: train_and_load(name, args))}


def train_and_load(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Train 20 steps with a strategy, and load the checkpoint."""
    folder = args.folder / name
    steps = ("trainer.max_steps=20", "trainer.val_check_interval=10", "trainer.log_every_n_steps=5")
    network = ("network.width=8",) if args.small else ()
    settings = (f"strategy={name}", "callbacks=sharded", "module/optimizer=adamw", *steps, *network)
    wall, _ = watch(program("train", folder, args, *settings), folder, args)
    model = guided_diffusion.load(folder / "checkpoints" / "last.ckpt")
    with torch.no_grad():
        prediction = model.denoiser(torch.randn(2, *model.shape), torch.full((2,), 0.5), torch.tensor([0, 1]))
    return {"seconds": wall, "losses": losses(folder), "loads": bool(prediction.x0.isfinite().all())}


def cifar10(args: argparse.Namespace) -> Found:
    start = time.monotonic()
    yield from training_steps(args)

    data, batch_size = ["data.batch_size=128"], 128
    there = args.data is not None and any((args.data / f"cifar-10-{one}").exists() for one in CIFAR10_FILES)
    if args.small or not there:
        data += ["data=fake", "data.channels=3", "data.image_size=32", "data.num_train=11000"]
    if args.small:
        data, batch_size = [*data[1:], "data.batch_size=16", "network.width=8", *FEW_STEPS], 16
    settings = ["callbacks=minimal", f"trainer.precision={'bf16-mixed' if args.device == 'cuda' else '32-true'}"]
    if args.device == "cuda":
        settings += ["module.compile=true", "module.channels_last=true"]
        torch.cuda.empty_cache()
    limit = int(max(10, min(args.cifar_seconds, args.limit - (time.monotonic() - start) - SECONDS_TO_COMPILE)))
    settings += [f"trainer.max_time=00:00:{limit // 60:02d}:{limit % 60:02d}"]
    folder = args.folder / "cifar10"
    command = program("train", folder, args, "+experiment=cfg_cifar10", *data, *settings)
    yield {"data": "CIFAR-10" if there and not args.small else "random images", "command": " ".join(command)}
    wall, progress = watch(command, folder, args)
    rates = [batch_size * (b - a) / (end - begin) for (begin, a), (end, b) in pairwise(progress)]
    rate = statistics.median(rates) if rates else None
    yield {
        "training": {
            "wall_seconds": wall,
            "batch_size": batch_size,
            "median_images_per_second": rate,
            "share_of_peak": share(rate, training_flops(args), peak(args)),
            "progress": progress,
            "losses": losses(folder),
        }
    }


PARTS: dict[str, tuple[Callable[[argparse.Namespace], Found], float]] = {
    "device": (device, 45),
    "mnist": (mnist, 180),
    "waits": (waits, 60),
    "graphs": (graphs, 75),
    "strategies": (strategies, 100),
    "cifar10": (cifar10, 280),
}
"""The parts and their time limits in seconds; less where less of the whole time is left."""
SECONDS_TO_COMPILE = 75
"""The time that the training of ``cifar10`` takes besides its steps: imports, compilation, the last checkpoint."""
STEPS_AT_A_TIME = 4
"""The number of training steps between two readings of the clock."""
FEW_STEPS = ("trainer.max_steps=4", "trainer.val_check_interval=2", "trainer.log_every_n_steps=1")


# What the parts measure with.


class Skipped(Exception):
    """The reason why a part can't run here."""


def attempt(run: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the result of a function, or its error, so that the next one still has its turn."""
    try:
        return run()
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}


def needs_cuda(args: argparse.Namespace) -> None:
    if args.device != "cuda":
        raise Skipped("needs CUDA")


def seconds(run: Callable[[], object], args: argparse.Namespace, repeats: int) -> float:
    """Return the median time of a run in seconds, after two warm-up runs."""
    times = []
    for _ in range(2 + repeats):
        synchronise(args)
        start = time.perf_counter()
        run()
        synchronise(args)
        times.append(time.perf_counter() - start)
    return statistics.median(times[2:])


def synchronise(args: argparse.Namespace) -> None:
    if args.device == "cuda":
        torch.cuda.synchronize()


def matrix_rate(args: argparse.Namespace, dtype: torch.dtype) -> float:
    """Return the FLOP/s of products of square matrices of random numbers."""
    side = 256 if args.small else 8192
    a, b = (torch.randn(side, side, device=args.device, dtype=dtype) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, args, repeats=10)


def peak(args: argparse.Namespace) -> float | None:
    """Return the device's dense bfloat16 FLOP/s by its data sheet, if it is in the table."""
    name = torch.cuda.get_device_name(0) if args.device == "cuda" else ""
    return next((value for part, value in PEAKS.items() if part in name), None)


def share(rate: float | None, flops: float, full: float | None) -> float | None:
    """Return the share that ``rate`` images per second, of ``flops`` each, are of ``full`` FLOP/s."""
    return rate * flops / full if rate and full else None


def random_denoiser(name: str, args: argparse.Namespace) -> Denoiser:
    """Return a denoiser with the network of ``conf/network/<name>.yaml`` whose output is not zero."""
    torch.manual_seed(0)
    node = OmegaConf.load(ROOT / "conf" / "network" / f"{name}.yaml")
    network = build_network(node, SHAPES[name], NUM_CLASSES)
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return Denoiser(network.to(args.device), Cosine()).eval()


def waiting_places(recipe: Recipe, denoiser: Denoiser, labels: Tensor) -> dict[str, Any]:
    """Return how often a step of sampling makes the host wait, and the places in the package where it does."""
    places: Counter[str] = Counter()

    def note(message: Warning | str, *_: object) -> None:
        if "called a synchronizing" in str(message):
            frames = [one for one in traceback.extract_stack() if Path(one.filename).is_relative_to(PACKAGE)]
            places["; ".join(f"{Path(one.filename).name}:{one.lineno} {one.line}" for one in frames[-1:])] += 1

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("always")
        for watched in (False, True):
            steps = recipe.steps(denoiser, labels, (1, 28, 28), range(len(labels)))
            warnings.showwarning = note if watched else warnings.showwarning
            torch.cuda.set_sync_debug_mode("warn" if watched else "default")
            try:
                count = sum(1 for _ in steps)
            finally:
                torch.cuda.set_sync_debug_mode("default")
    return {"waits_per_step": sum(places.values()) / count, "places": dict(places)}


class Graphed(nn.Module):
    """A denoiser whose call, for batches of one size with labels, is replayed from a CUDA graph."""

    def __init__(
        self, denoiser: Denoiser, batch_size: int, shape: Sequence[int], autocast: Callable[..., torch.autocast]
    ) -> None:
        super().__init__()
        self.denoiser, self.schedule, self.autocast = denoiser, denoiser.schedule, autocast
        device = next(denoiser.parameters()).device
        self.inputs = (
            torch.randn(batch_size, *shape, device=device),
            torch.full((batch_size,), 0.5, device=device),
            torch.zeros(batch_size, dtype=torch.long, device=device),
        )
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.run()
        torch.cuda.current_stream().wait_stream(stream)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.outputs = self.run()

    def run(self) -> Prediction:
        with torch.no_grad(), self.autocast(cache_enabled=False):
            return self.denoiser(*self.inputs)

    def forward(self, x_t: Tensor, t: Tensor, y: Labels = None) -> Prediction:
        for static, value in zip(self.inputs, (x_t, t, y), strict=True):
            static.copy_(value)
        self.graph.replay()
        return Prediction(*(output.clone() for output in self.outputs))


def training_steps(args: argparse.Namespace) -> Found:
    """Yield the training images per second of the network alone, on data that are on the device, and the shares."""
    name, batch_sizes = ("unet_8", (8,)) if args.small else ("unet_cifar10", (128, 512))
    denoiser, flops, rate = random_denoiser(name, args).train(), training_flops(args), matrix_rate(args, torch.bfloat16)
    denoiser.backbone.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=1e-4, fused=True)
    yield {"gigaflops_per_image": flops / 1e9, "matrix_flops": rate, "peak_flops": peak(args)}
    cases = [(size, False) for size in batch_sizes] + [(batch_sizes[0], True)] * (args.device == "cuda")
    for batch_size, compiled in cases:
        if compiled:
            denoiser.backbone.compile()
        images = torch.randn(batch_size, *SHAPES[name], device=args.device)
        images = images.to(memory_format=torch.channels_last)
        labels = torch.randint(NUM_CLASSES, (batch_size,), device=args.device)
        times = stratified_times(batch_size, torch.Generator(args.device).manual_seed(0))

        def step(images: Tensor = images, labels: Tensor = labels, times: Tensor = times) -> None:
            with torch.autocast(args.device, torch.bfloat16):
                loss = denoising_loss(denoiser, images, labels, times, torch.randn_like(images), Uniform()).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        def steps(step: Callable[[], None] = step) -> None:
            for _ in range(STEPS_AT_A_TIME):
                step()

        speed = STEPS_AT_A_TIME * batch_size / seconds(steps, args, repeats=2 if args.small else 5)
        result = {"images_per_second": speed, "share_of_matrix_rate": share(speed, flops, rate)}
        case = f"step, batch {batch_size}, {'compiled' if compiled else 'eager'}"
        yield {case: result | {"share_of_peak": share(speed, flops, peak(args))}}


def training_flops(args: argparse.Namespace) -> float:
    """Return the FLOPs of a training step for one image: the network forward and backward."""
    name = "unet_8" if args.small else "unet_cifar10"
    denoiser, images = random_denoiser(name, args).train(), torch.randn(2, *SHAPES[name], device=args.device)
    labels, times = torch.zeros(2, dtype=torch.long, device=args.device), torch.full((2,), 0.5, device=args.device)
    with FlopCounterMode(display=False) as counter:
        denoising_loss(denoiser, images, labels, times, torch.randn_like(images), Uniform()).mean().backward()
    return counter.get_total_flops() / 2


# The package's own programs.


def program(name: str, folder: Path, args: argparse.Namespace, *overrides: str) -> list[str]:
    accelerator = f"trainer.accelerator={'gpu' if args.device == 'cuda' else 'cpu'}"
    return [sys.executable, "-m", f"guided_diffusion.{name}", *overrides, accelerator, f"output_dir={folder}"]


def watch(command: Sequence[str], folder: Path, args: argparse.Namespace) -> tuple[float, list[tuple[float, int]]]:
    """Run a program; return its seconds, and when which step was in its table of metrics, in seconds from its start.

    Raises:
        RuntimeError: With the end of its output if it fails.
    """
    folder.mkdir(parents=True, exist_ok=True)
    progress: list[tuple[float, int]] = []
    start = time.monotonic()
    with (folder / "output.log").open("w+", encoding="utf-8") as log:
        process = subprocess.Popen(
            command, cwd=args.folder, stdout=log, stderr=subprocess.STDOUT, env=environment(args)
        )
        status = None
        while status is None:
            with suppress(subprocess.TimeoutExpired):
                status = process.wait(1)
            step = max((int(row["step"]) for row in metrics(folder) if row.get("step")), default=None)
            if step is not None and (not progress or step > progress[-1][1]):
                progress.append((round(time.monotonic() - start, 2), step))
        if status:
            log.seek(0)
            raise RuntimeError(f"{' '.join(command[2:4])} ended with status {status}: {log.read()[-1500:]}")
    return time.monotonic() - start, progress


def environment(args: argparse.Namespace) -> dict[str, str]:
    """Return the environment of the programs: one device needs no network, and this checkout comes first."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    data = {"GUIDED_DIFFUSION_DATA": str(args.data.absolute())} if args.data else {}
    local = {"NCCL_SOCKET_IFNAME": "lo", "GLOO_SOCKET_IFNAME": "lo", "WANDB_MODE": "offline"}
    return local | os.environ | data | {"PYTHONPATH": path}


def metrics(folder: Path) -> list[dict[str, str]]:
    """Return the rows of a training's table of metrics; none before it is written."""
    try:
        with (folder / "metrics.csv").open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def losses(folder: Path, most: int = 50) -> list[tuple[int, float]]:
    """Return steps and training losses, at most about ``most`` of them at equal distances."""
    rows = [(int(row["step"]), float(row["train/loss"])) for row in metrics(folder) if row.get("train/loss")]
    return rows[:: len(rows) // most + 1]


def number(text: str | None) -> float | str | None:
    """Return the number that a cell of a table holds, or its text."""
    try:
        return float(text) if text is not None else None
    except ValueError:
        return text


# Running the parts.


def run_part(args: argparse.Namespace) -> None:
    """Run one part in this process, and write its result after each piece."""
    result: dict[str, Any] = {"status": "done"}
    try:
        for piece in PARTS[args.part][0](args):
            result |= piece
            write(args.out, result | {"status": "not finished"})
    except Skipped as reason:
        result |= {"status": f"skipped: {reason}"}
    except Exception as error:
        result |= {"status": "failed", "error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
    write(args.out, result)


def start_part(name: str, args: argparse.Namespace, limit: float) -> dict[str, Any]:
    """Run one part in a process of its own, and return its result; after ``limit`` seconds it is ended."""
    file = args.folder / f"{name}.json"
    options = ["--part", name, "--out", str(file), "--folder", str(args.folder), "--limit", str(limit)]
    options += ["--device", args.device, "--cifar-seconds", str(args.cifar_seconds)]
    options += ["--data", str(args.data)] * (args.data is not None) + ["--small"] * args.small
    start = time.monotonic()
    with (args.folder / f"{name}.log").open("w+", encoding="utf-8", errors="replace") as log:
        command = [sys.executable, str(Path(__file__).absolute()), *options]
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment(args), start_new_session=True
        )
        try:
            status = process.wait(limit)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            end_group(process)
        log.seek(0)
        output = log.read()
    result = json.loads(file.read_text()) if file.is_file() else {"status": "failed"}
    if status is None:
        result |= {"status": f"stopped after {limit:.0f} seconds"}
    elif status:
        result |= {"status": f"failed with exit status {status}"}
    if result["status"] not in ("done",) and not result["status"].startswith("skipped"):
        result |= {"output": output[-2000:]}
    return result | {"seconds": round(time.monotonic() - start, 1)}


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process, if it still runs, and all that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def write(path: Path, content: dict[str, Any]) -> None:
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)


def run_all(args: argparse.Namespace) -> None:
    """Run the parts one after the other, and write the results of all so far after each."""
    start = time.monotonic()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    options = {"device": args.device, "small": args.small, "minutes": args.minutes, "data": str(args.data)}
    found: dict[str, Any] = {"started": datetime.now().isoformat(timespec="seconds"), "options": options, "parts": {}}
    for name in args.parts:
        left = 60 * args.minutes - SECONDS_TO_END - (time.monotonic() - start)
        limit = left if args.small else min(PARTS[name][1], left)  # a slow CPU takes what it needs
        result = start_part(name, args, limit) if limit > 10 else {"status": "skipped: no time is left"}
        found["parts"][name] = result
        found["seconds"] = round(time.monotonic() - start, 1)
        write(args.out, found)
        print(f"{name}: {result['status']} ({found['seconds']:.0f} s in all)", flush=True)
    print(f"all results are in {args.out}")


SECONDS_TO_END = 5
"""The time that is kept for the end of a part and the last file."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = os.environ.get("GUIDED_DIFFUSION_DATA")
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    parser.add_argument("--minutes", type=float, default=8, help="the time for all parts together")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--data", type=Path, default=data, help="the folder of the datasets")
    parser.add_argument("--cifar-seconds", type=float, default=150, help="the time of the training on CIFAR-10")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--small", action="store_true", help="tiny networks and few steps, to try the script on a CPU")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)  # the part that this process runs
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--limit", type=float, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        run_part(args)
        return
    if args.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device: on a CPU the script runs with --small --device cpu")
    with tempfile.TemporaryDirectory(prefix="gpu-") as folder:
        args.folder = Path(folder)
        run_all(args)


if __name__ == "__main__":
    main()
