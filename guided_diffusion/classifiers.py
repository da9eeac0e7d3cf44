r"""Time-aware classifiers of noisy samples, and the gradient of their log-probabilities.

A classifier estimates ``p(y | x_t)`` at every noise level. By Bayes' rule its gradient is the difference between the
score of a class and the unconditional score (Dhariwal & Nichol 2021, arXiv 2105.05233, section 4):

    grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t)
"""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from guided_diffusion.schedules import Samples, Schedule, Times

Classify = Callable[[Tensor, Tensor], Tensor]
"""A classifier, ``classify(x_t, t) -> logits``, with one time per sample; the softmax of the logits is p(y | x_t)."""

Objective = Callable[[Tensor, Tensor], Tensor]
"""A function ``objective(logits, y)`` of the logits and the class of each sample, of shape (b,)."""

RELUS = frozenset({F.relu, F.relu_, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_})
"""The functions by which a network may compute a ReLU."""


def classes_of(network: nn.Module) -> int | None:
    """Return the number of classes of a classifier's network; ``None`` for another, such as one that takes labels."""
    takes_labels = "y" in inspect.signature(network.forward).parameters
    return None if takes_labels else getattr(network, "num_classes", None)


class Classifier(nn.Module):
    """A schedule and a network ``backbone(x_t, log_snr) -> logits``: together ``classifier(x_t, t) -> logits``."""

    def __init__(self, backbone: nn.Module, schedule: Schedule) -> None:
        super().__init__()
        self.backbone = backbone
        self.schedule = schedule

    def forward(self, x_t: Samples, t: Times) -> Float[Tensor, "b classes"]:
        return self.backbone(x_t, self.schedule.log_snr(t)).to(x_t.dtype)


def is_judge(classify: object) -> bool:
    """Return ``is_judge`` of a classifier, ``False`` if it has no such attribute."""
    return bool(getattr(classify, "is_judge", False))


def check_judge_may_guide(classify: object, allow_judge: bool) -> None:
    """Raise ``ValueError`` for a judge as the classifier of a guidance, unless it is allowed to guide."""
    if is_judge(classify) and not allow_judge:
        raise ValueError(
            "classifier holds a judge, which measures samples: name another classifier, or add "
            "guidance.allow_judge=true and measure with another judge"
        )


def gradient(classify: Classify, x_t: Samples, t: Times, y: Int[Tensor, " b"], temperature: float = 1.0) -> Samples:
    """Return ``grad log p(y | x_t)`` of each sample, with ``p = softmax(logits / temperature)``.

    A temperature of 1 leaves the classifier as trained; below 1 it is more certain. For the rest see
    ``logits_and_gradient``.
    """
    return logits_and_gradient(partial(log_probability, temperature=temperature), classify, x_t, t, y)[1]


def log_probability(
    logits: Float[Tensor, "b classes"], y: Int[Tensor, " b"], temperature: float = 1.0
) -> Float[Tensor, " b"]:
    """Return ``log softmax(logits / temperature)`` at the class of each sample."""
    return (logits / temperature).log_softmax(1).gather(1, y[:, None])[:, 0]


def logits_and_gradient(
    objective: Objective, classify: Classify, x: Samples, t: Times, y: Int[Tensor, " b"]
) -> tuple[Float[Tensor, "b classes"], Samples]:
    """Return the logits of each sample, and the gradient of ``objective(logits, y)`` with respect to it.

    Every sample must have a class ``y``. Both are computed in float32 or better even under autocast, and also under
    ``no_grad`` and in inference mode.
    """
    with torch.inference_mode(False), torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
        # Tensors made in inference mode can't require gradients; their copies can.
        x = x.detach().to(torch.promote_types(x.dtype, torch.float32), copy=True).requires_grad_()
        logits = classify(x, t.to(x.dtype, copy=True))
        (grad,) = torch.autograd.grad(objective(logits, y.clone()).sum(), x)
    return logits.detach(), grad


def softplus_for_relu(classify: Classify, beta: float) -> Classify:
    """Return a classifier with ``Softplus(beta)`` in place of every ReLU; ``classify`` itself stays as it is.

    Raises:
        ValueError: When called, if the classifier has no ReLU.
    """

    def smooth(x: Samples, t: Times) -> Float[Tensor, "b classes"]:
        with _SoftplusMode(beta) as mode:
            logits = classify(x, t)
        if not mode.replaced:
            raise ValueError("softplus_beta has no effect on a classifier without ReLU: leave it out")
        return logits

    return smooth


class _SoftplusMode(TorchFunctionMode):
    """A context in which every ReLU, that of a module or a function, is ``softplus(beta x) / beta``."""

    def __init__(self, beta: float) -> None:
        super().__init__()
        self.beta = beta
        self.replaced = 0

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function not in RELUS:
            return function(*args, **kwargs)
        self.replaced += 1
        return F.softplus(args[0] if args else kwargs["input"], self.beta)
