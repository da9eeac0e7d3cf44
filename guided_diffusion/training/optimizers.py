"""The optimizer Muon for hidden weights, with AdamW for all others, and the split of a network's parameters."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Muon, Optimizer

from guided_diffusion.classifiers import Classifier

Loss = float | Tensor


def hidden_and_other(module: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters of a module in two groups, ``muon`` true and false, for ``MuonWithAdamW``.

    The first group holds the weights of the hidden convolutions and linear layers. The second group holds all other
    parameters: the weights of the layers that read the sample and write the output, embeddings, biases, norms and
    tables, as Jordan et al. 2024 advise ("Muon: An optimizer for hidden layers in neural networks").

    The first convolution reads the sample and the last one writes the output, or the first and last linear layer in a
    network without convolutions. A ``Classifier`` ends with its last linear layer. Layers of a submodule ``condition``
    read the noise level and the label: they are hidden.
    """
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    on_path = [layer for name, layer in layers.items() if "condition" not in name.split(".")]
    ends = [layer for layer in on_path if isinstance(layer, nn.Conv2d)] or on_path
    classifies = any(isinstance(part, Classifier) for part in module.modules())
    outer = {id(layer.weight) for layer in (*ends[:1], *(on_path if classifies else ends)[-1:])}
    hidden = {id(layer.weight): layer.weight for layer in layers.values() if id(layer.weight) not in outer}
    others = [parameter for parameter in module.parameters() if id(parameter) not in hidden]
    return [{"params": list(hidden.values()), "muon": True}, {"params": others, "muon": False}]


class MuonWithAdamW(Optimizer):
    """Muon for the groups with ``muon`` true, AdamW for the others: torch's own classes, in one optimizer.

    The weight of a convolution is a matrix to Muon, with a row for each output channel. Muon's update has orthogonal
    rows or columns and a root mean square of ``0.2 lr`` (Liu et al. 2025, arXiv 2502.16982, section 2.2).

    Args:
        groups: The parameters as ``hidden_and_other`` returns them.
        lr: The learning rate of Muon.
        momentum: The momentum of Muon.
        weight_decay: The decay of all weights, decoupled.
        adamw_lr: The learning rate of AdamW.
        adamw_betas: The decays of AdamW's two averages.
        ns_steps: The number of Newton-Schulz iterations that make Muon's update orthogonal; fewer take less time.

    Raises:
        ValueError: If a setting is out of range, or a group is empty.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 7e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
        adamw_lr: float = 5e-3,
        adamw_betas: Sequence[float] = (0.9, 0.99),
        ns_steps: int = 5,
    ) -> None:
        if not 0 < adamw_lr < math.inf:
            raise ValueError(f"adamw_lr must be positive and finite, got {adamw_lr}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if ns_steps not in range(1, 100):
            raise ValueError(f"ns_steps must be a whole number from 1 to 99, got {ns_steps}")
        first, second = adamw_betas
        names_and_rates = {True: {"name": "muon", "lr": lr}, False: {"name": "adamw", "lr": adamw_lr}}
        groups = [group | names_and_rates[group["muon"]] for group in groups]
        if not all(group["params"] for group in groups):
            raise ValueError("Muon needs a network with hidden weights and others: add module/optimizer=adamw")
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self._parts: list[tuple[Optimizer, list[nn.Parameter]]] = []
        for group in self.param_groups:
            own = [nn.Parameter(_matrix(weight)) for weight in group["params"]] if group["muon"] else group["params"]
            part: Optimizer = (  # AdamW is not fused: on a CPU that mixes up gradients in another memory format
                Muon(own, lr, weight_decay, momentum, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw")
                if group["muon"]
                else AdamW(own, adamw_lr, (first, second), weight_decay=weight_decay, foreach=True)
            )
            self._parts.append((part, own))

    @torch.no_grad()
    def step(self, closure: Callable[[], Loss] | None = None) -> Loss | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, (part, own) in zip(self.param_groups, self._parts, strict=True):
            part.param_groups[0].update({name: group[name] for name in ("lr", "weight_decay")})
            for parameter, trained in zip(group["params"], own, strict=True):
                part.state[trained] = self.state[parameter]  # one dict for both: a checkpoint holds that of self
            if group["muon"]:
                _step_as_matrices(part, group["params"], own)
            else:
                part.step()
        return loss


def _step_as_matrices(optimizer: Optimizer, weights: Sequence[nn.Parameter], matrices: Sequence[nn.Parameter]) -> None:
    """Make a step with the ``matrices`` of an optimizer, which get the values and gradients of ``weights`` for it."""
    for weight, matrix in zip(weights, matrices, strict=True):
        matrix.data = _matrix(weight)
        matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
    optimizer.step()
    for weight, matrix in zip(weights, matrices, strict=True):
        weight.copy_(matrix.view_as(weight))
        matrix.grad = None  # its memory is free until the next step


def _matrix(weight: nn.Parameter) -> Tensor:
    """Return a copy of a weight as a matrix, in which the order of values is the same in every memory format."""
    return weight.detach().flatten(1).clone()
