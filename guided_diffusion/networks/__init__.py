"""The networks of denoisers, time-aware classifiers and judges."""

from guided_diffusion.networks.fast_unet import FastUNet
from guided_diffusion.networks.judge import JudgeNet, LeNet, ResidualJudge
from guided_diffusion.networks.mlp import MLP, NoisyMLPClassifier
from guided_diffusion.networks.noisy_classifier import NoisyClassifier
from guided_diffusion.networks.noisy_cnn import NoisyCNNClassifier
from guided_diffusion.networks.unet import UNet

__all__ = [
    "MLP",
    "FastUNet",
    "JudgeNet",
    "LeNet",
    "NoisyCNNClassifier",
    "NoisyClassifier",
    "NoisyMLPClassifier",
    "ResidualJudge",
    "UNet",
]
