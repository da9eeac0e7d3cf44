"""The training of diffusers' example ``unconditional_image_generation``, made class-conditional and scaled to 28x28.

As there: ``UNet2DModel`` with two layers in a block, attention at the second lowest level, 1000 steps of a linear beta
from 1e-4 to 0.02, noise prediction, batches of 16, AdamW with rate 1e-4, betas (0.95, 0.999) and weight decay 1e-6,
gradients clipped to norm 1, 500 steps of warm-up and then a cosine to 0, averaged weights with decay
``min(0.9999, 1 - (1 + n)^-0.75)``, and estimates clipped to [-1, 1] in sampling.

Scaled: 28 can be halved only twice, so there are three levels instead of six, one for each width of the example (128,
256 and 512); each width is divided by 4, and a group of GroupNorm has 4 channels, as at the example's first level. A
training of fewer than 5,000 steps warms up in a tenth of them. Digits are not mirrored. Added for labels: the class
embedding of ``UNet2DModel``, with one row more for no label, and a label dropout of 0.1.
"""

import torch
from diffusers import UNet2DModel
from diffusers.optimization import get_cosine_schedule_with_warmup
from torch import Tensor, nn

from contestants.peers import Peer, step_of, with_missing
from guided_diffusion.denoisers import Labels
from guided_diffusion.schedules import LinearBeta

WIDTHS = (32, 64, 128)
WARMUP_STEPS = 500


class ExampleUNet(nn.Module):
    """``UNet2DModel`` with our signature."""

    def __init__(self, channels: int, num_classes: int, schedule: LinearBeta) -> None:
        super().__init__()
        self.schedule = schedule
        self.num_classes = num_classes
        self.unet = UNet2DModel(
            in_channels=channels,
            out_channels=channels,
            layers_per_block=2,
            block_out_channels=WIDTHS,
            down_block_types=("DownBlock2D", "AttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=WIDTHS[0] // 4,
            num_class_embeds=num_classes + 1,
        )

    def forward(self, x_t: Tensor, log_snr: Tensor, y: Labels) -> Tensor:
        labels = with_missing(y, log_snr)
        rows = torch.where(labels < 0, self.num_classes, labels)
        return self.unet(x_t, step_of(log_snr, self.schedule) - 1, rows).sample


def optimization(parameters: list[nn.Parameter], steps: int) -> tuple[torch.optim.Optimizer, object]:
    """Return AdamW and its learning rates: a warm-up and then a cosine to 0 over all steps."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, foreach=True)
    return optimizer, get_cosine_schedule_with_warmup(optimizer, min(WARMUP_STEPS, steps // 10), steps)


def diffusers_example(batch_size: int = 16) -> Peer:
    """Return the example as a contestant."""
    return Peer(
        network=ExampleUNet,
        schedule=LinearBeta(1000, 1e-4, 0.02),
        first_step=1,
        batch_size=batch_size,
        optimization=optimization,
        scales=(1.0, 2.0),
        average=True,
        gradient_norm=1.0,
    )
