"""Time our U-Net against ``UNet2DModel`` of diffusers: a training step and a forward pass.

Both networks are in one process and take turns, A B A B, so that other programs on the machine slow down both. There
are three pairs, for 28x28 images with one channel:

- ``fast``: ours is ``conf/network/unet_28_fast.yaml``, on 2x2 patches, with the channels last, as it wants them; theirs
  has as many parameters (to 2 %), on pixels and with three levels. Not equal: the amount of computation, as below.
- ``as shipped``: ours is ``conf/network/unet_28_small.yaml``, on 2x2 patches and with two levels; theirs has as many
  parameters, on pixels and with three levels. Equal: parameters (to 2 %), image, classes. Not equal: the amount of
  computation, most of which the patches save. This pair shows the benefit of our network, not whose code is faster.
- ``equal terms``: both work on pixels, with three levels of 32, 64 and 64 channels, a block a level, attention in the
  middle with heads of 32 channels, the condition as scale and shift, 128 channels of condition. Equal: widths,
  levels, blocks, parameters (to 2 %). Not equal: the groups of a GroupNorm (theirs 4, ours one per 8 channels); the
  embedding of time; attention, by convolutions here and by linear layers there; and upsampling, which ours does in
  one transposed convolution.

Equal in all pairs: batch, noise, times, loss, precision, fused AdamW and its settings; in the last two also the memory
format. ``--channels-last`` is for theirs and the older networks of ours. The ratio is our time over theirs, so ours is
faster if it is below 1; its range is over the turns.

    python benchmarks/against_diffusers.py --precision bf16
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from diffusers import UNet2DModel
from diffusers import __version__ as diffusers_version
from throughput import NUM_CLASSES, load
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from guided_diffusion.denoisers import Denoiser
from guided_diffusion.losses import Uniform, denoising_loss, stratified_times
from guided_diffusion.networks import UNet
from guided_diffusion.schedules import Cosine

SIZE = 28


class Theirs(nn.Module):
    """``UNet2DModel`` with our signature and our number of rows in the label table."""

    def __init__(self, *widths: int) -> None:
        super().__init__()
        self.unet = UNet2DModel(
            sample_size=SIZE,
            in_channels=1,
            out_channels=1,
            block_out_channels=widths,
            layers_per_block=1,
            down_block_types=("DownBlock2D",) * len(widths),
            up_block_types=("UpBlock2D",) * len(widths),
            attention_head_dim=32,
            norm_num_groups=4,
            resnet_time_scale_shift="scale_shift",
            num_class_embeds=NUM_CLASSES + 1,
        )

    def forward(self, x_t: Tensor, log_snr: Tensor, y: Tensor) -> Tensor:
        return self.unet(x_t, log_snr, y).sample


PAIRS: dict[str, tuple[Callable[[], nn.Module], Callable[[], nn.Module]]] = {
    "fast": (lambda: load("unet_28_fast"), lambda: Theirs(32, 48, 48)),
    "as shipped": (lambda: load("unet_28_small"), lambda: Theirs(32, 48, 48)),
    "equal terms": (
        lambda: UNet(1, SIZE, NUM_CLASSES, width=32, multipliers=(1, 2, 2), blocks=1),
        lambda: Theirs(32, 64, 64),
    ),
}
OWN_FORMAT = {"fast"}
"""The pairs whose network of ours has a memory format of its own."""


class Contestant:
    """A network with its optimizer and a batch: its timed functions, its number of parameters and its FLOPs."""

    def __init__(self, network: nn.Module, args: argparse.Namespace, channels_last: bool) -> None:
        self.device = torch.device(args.device)
        self.autocast = args.precision == "bf16"
        memory_format = torch.channels_last if channels_last else torch.preserve_format
        self.denoiser = Denoiser(network.to(self.device, memory_format=memory_format), Cosine())
        self.optimizer = torch.optim.AdamW(self.denoiser.parameters(), lr=1e-4, fused=True)

        generator = torch.Generator().manual_seed(0)
        shape = (args.batch_size, 1, SIZE, SIZE)
        images, noise = (torch.randn(shape, generator=generator).to(self.device) for _ in range(2))
        self.images, self.noise = images.to(memory_format=memory_format), noise.to(memory_format=memory_format)
        self.labels = torch.randint(NUM_CLASSES, shape[:1], generator=generator).to(self.device)
        self.times = stratified_times(args.batch_size, generator).to(self.device)

    def train(self) -> None:
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            loss = denoising_loss(self.denoiser, self.images, self.labels, self.times, self.noise, Uniform()).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def forward(self) -> None:
        with torch.no_grad(), torch.autocast(self.device.type, torch.bfloat16, enabled=self.autocast):
            self.denoiser(self.images, self.times, self.labels)

    def parameters(self) -> float:
        """Return the number of parameters in millions."""
        return sum(parameter.numel() for parameter in self.denoiser.parameters()) / 1e6

    def flops(self) -> float:
        """Return the FLOPs of a forward pass for one image, in millions."""
        with FlopCounterMode(display=False) as counter:
            self.forward()
        return counter.get_total_flops() / len(self.images) / 1e6


def in_turns(ours: Callable[[], None], theirs: Callable[[], None], turns: int, cuda: bool) -> list[tuple[float, float]]:
    """Return the milliseconds of both for each turn, after two warm-up turns."""
    times = []
    for _ in range(2 + turns):
        marks = [time.perf_counter()]
        for run in (ours, theirs):
            run()
            if cuda:
                torch.cuda.synchronize()
            marks.append(time.perf_counter())
        times.append((1e3 * (marks[1] - marks[0]), 1e3 * (marks[2] - marks[1])))
    return times[2:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", choices=["32", "bf16"], default="32")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--turns", type=int, default=15)
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()

    print(f"torch {torch.__version__}, diffusers {diffusers_version}, {args.device}, {torch.get_num_threads()} CPU")
    print(f"threads, batch {args.batch_size}, precision {args.precision}, channels last {args.channels_last}")
    for name in args.pairs:
        torch.manual_seed(0)
        make_ours, make_theirs = PAIRS[name]
        ours = Contestant(make_ours(), args, args.channels_last and name not in OWN_FORMAT)
        theirs = Contestant(make_theirs(), args, args.channels_last)
        print(f"\n{name}:")
        for who, contestant in (("ours", ours), ("theirs", theirs)):
            print(f"  {who:<10} {contestant.parameters():.3f} M parameters, {contestant.flops():.0f} MFLOP forward")
        for what, a, b in (("train step", ours.train, theirs.train), ("forward", ours.forward, theirs.forward)):
            times = in_turns(a, b, args.turns, args.device.startswith("cuda"))
            median_ours, median_theirs = (statistics.median(column) for column in zip(*times, strict=True))
            ratios = [a / b for a, b in times]
            print(
                f"  {what:<10} ours {median_ours:8.1f} ms, theirs {median_theirs:8.1f} ms, "
                f"ratio {median_ours / median_theirs:.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
                flush=True,
            )


if __name__ == "__main__":
    main()
