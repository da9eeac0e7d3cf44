"""Networks: torch only."""

from guided_diffusion.networks.judge import JudgeNet
from guided_diffusion.networks.noisy_classifier import NoisyClassifier
from guided_diffusion.networks.unet import UNet

__all__ = ["JudgeNet", "NoisyClassifier", "UNet"]
