"""Networks: torch only."""

from guided_diffusion.networks.judge import JudgeNet
from guided_diffusion.networks.unet import UNet

__all__ = ["JudgeNet", "UNet"]
