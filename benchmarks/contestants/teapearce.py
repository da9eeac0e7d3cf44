"""The conditional MNIST lesson of T. Pearce, github.com/TeaPearce/Conditional_Diffusion_MNIST, written anew.

As there: a U-Net with 128 features, batch norm and GELU, 400 steps of a linear beta from 1e-4 to 0.02, noise
prediction, images in [0, 1], batches of 256, Adam with rate 1e-4 that falls linearly in 20 stages (its 20 epochs, here
20 equal parts of the budget), label dropout of 0.1, no averaged weights, no clipping. Its guidance strengths 0, 0.5 and
2 are our scales 1, 1.5 and 3.

The lesson numbers its steps 0 to 400 with 401 betas and trains 1 to 400: these are the steps 2 to 401 of
``LinearBeta(401)``.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from contestants.peers import Peer, step_of, with_missing
from guided_diffusion.denoisers import Labels
from guided_diffusion.schedules import LinearBeta

STEPS, STAGES = 400, 20


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """Return a 3x3 convolution with batch norm and GELU."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.GELU())


def double(inputs: int, outputs: int) -> nn.Sequential:
    """Return two such convolutions."""
    return nn.Sequential(conv_block(inputs, outputs), conv_block(outputs, outputs))


def up(inputs: int, outputs: int) -> nn.Sequential:
    """Return an upsampling by 2, followed by four convolutions."""
    return nn.Sequential(nn.ConvTranspose2d(inputs, outputs, 2, 2), double(outputs, outputs), double(outputs, outputs))


def embedding(inputs: int, outputs: int) -> nn.Sequential:
    """Return two linear layers, whose output has the shape of a one-pixel image."""
    layers = nn.Linear(inputs, outputs), nn.GELU(), nn.Linear(outputs, outputs)
    return nn.Sequential(*layers, nn.Unflatten(1, (outputs, 1, 1)))


class ContextUNet(nn.Module):
    """The lesson's U-Net for 28x28, with our signature.

    Two levels down by max-pooling to 7x7, the mean over these pixels, and two levels up, each of which begins with the
    context times the features plus the time. A label is one-hot, and zeros stand for none.
    """

    def __init__(self, channels: int, num_classes: int, schedule: LinearBeta, features: int = 128) -> None:
        super().__init__()
        self.schedule = schedule
        self.num_classes = num_classes
        wide = 2 * features
        self.first, self.second = conv_block(channels, features), conv_block(features, features)
        self.down1 = nn.Sequential(double(features, features), nn.MaxPool2d(2))
        self.down2 = nn.Sequential(double(features, wide), nn.MaxPool2d(2))
        self.bottom = nn.Sequential(nn.AvgPool2d(7), nn.GELU())
        self.grow = nn.Sequential(nn.ConvTranspose2d(wide, wide, 7, 7), nn.GroupNorm(8, wide), nn.ReLU())
        self.up1, self.up2 = up(2 * wide, features), up(wide, features)
        self.time1, self.time2 = embedding(1, wide), embedding(1, features)
        self.context1, self.context2 = embedding(num_classes, wide), embedding(num_classes, features)
        self.last = nn.Sequential(
            nn.Conv2d(wide, features, 3, padding=1),
            nn.GroupNorm(8, features),
            nn.ReLU(),
            nn.Conv2d(features, channels, 3, padding=1),
        )

    def forward(self, x_t: Tensor, log_snr: Tensor, y: Labels) -> Tensor:
        t = ((step_of(log_snr, self.schedule) - 1) / STEPS).clamp(min=1 / STEPS)[:, None]
        labels = with_missing(y, log_snr)
        context = F.one_hot(labels.clamp(min=0), self.num_classes).float() * (labels >= 0)[:, None]
        first = self.first(x_t)
        x = (first + self.second(first)) / 1.414
        down1 = self.down1(x)
        down2 = self.down2(down1)
        up1 = self.context1(context) * self.grow(self.bottom(down2)) + self.time1(t)
        up2 = self.context2(context) * self.up1(torch.cat((up1, down2), 1)) + self.time2(t)
        return self.last(torch.cat((self.up2(torch.cat((up2, down1), 1)), x), 1))


def optimization(parameters: list[nn.Parameter], steps: int) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """Return Adam and its learning rates, which fall linearly in stages."""
    optimizer = torch.optim.Adam(parameters, lr=1e-4, foreach=True)
    return optimizer, LambdaLR(optimizer, lambda step: max(0.0, 1 - step * STAGES // steps / STAGES))


def teapearce(batch_size: int = 256) -> Peer:
    """Return the lesson as a contestant."""
    return Peer(
        network=ContextUNet,
        schedule=LinearBeta(STEPS + 1, 1e-4, 0.02),
        first_step=2,
        batch_size=batch_size,
        optimization=optimization,
        scales=(1.0, 1.5, 3.0),
        average=False,
        low=0.0,
        clip_samples=False,
    )
