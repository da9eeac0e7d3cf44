r"""Time-aware classifiers of noisy samples, and the gradient of their log-probabilities.

A classifier estimates ``p(y | x_t)`` at every noise level. By Bayes' rule its gradient is the difference between the
score of a class and the unconditional score (Dhariwal & Nichol 2021, arXiv 2105.05233, section 4):

    grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t)
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from guided_diffusion.schedules import Samples, Schedule, Times

Classify = Callable[[Tensor, Tensor], Tensor]
"""A classifier, ``classify(x_t, t) -> logits``, with one time per sample; the softmax of the logits is p(y | x_t)."""


class Classifier(nn.Module):
    """A schedule and a network ``backbone(x_t, log_snr) -> logits``: together ``classifier(x_t, t) -> logits``."""

    def __init__(self, backbone: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.backbone = backbone
        self.schedule = schedule

    def forward(self, x_t: Samples, t: Times) -> Float[Tensor, "b classes"]:
        return self.backbone(x_t, self.schedule.log_snr(t)).to(x_t.dtype)


def gradient(classify: Classify, x_t: Samples, t: Times, y: Int[Tensor, " b"], temperature: float = 1.0) -> Samples:
    """Return ``grad log p(y | x_t)`` of each sample, with ``p = softmax(logits / temperature)``.

    Every sample must have a class ``y``. A temperature of 1 leaves the classifier as trained; below 1 it is more
    certain. The gradient is computed in float32 or better even under autocast, and also under ``no_grad`` and in
    inference mode.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(x_t.device.type, enabled=False):
        # Tensors made in inference mode can't require gradients; their copies can.
        x = x_t.detach().to(torch.promote_types(x_t.dtype, torch.float32), copy=True).requires_grad_()
        log_p = (classify(x, t.to(x.dtype, copy=True)) / temperature).log_softmax(1)
        (grad,) = torch.autograd.grad(log_p.gather(1, y.clone()[:, None]).sum(), x)
    return grad
