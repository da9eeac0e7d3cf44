"""The optimizer Muon for hidden weights, with AdamW for all others, and the split of a network's parameters."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import nn
from torch.optim import AdamW, Muon, Optimizer


def hidden_and_other(module: nn.Module) -> list[dict[str, Any]]:
    """Return the parameters of a module in two groups, ``muon`` true and false, for ``MuonWithAdamW``.

    The first group holds the hidden weights: those of convolutions and linear layers, except for the first and the last
    convolution (without convolutions: linear layer), which read the sample and write the output. The second group holds
    these two, embeddings, biases, norms and tables, as Jordan et al. 2024 advise
    ("Muon: An optimizer for hidden layers in neural networks").
    """
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear | nn.Conv2d)]
    ends = [layer for layer in layers if isinstance(layer, nn.Conv2d)] or layers
    outer = {id(layer.weight) for layer in (*ends[:1], *ends[-1:])}
    hidden = {id(layer.weight): layer.weight for layer in layers if id(layer.weight) not in outer}
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

    Raises:
        ValueError: If a learning rate, the momentum or the weight decay is negative, or ``adamw_lr`` is 0.
    """

    def __init__(
        self,
        groups: Iterable[dict[str, Any]],
        lr: float = 7e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.01,
        adamw_lr: float = 5e-3,
        adamw_betas: Sequence[float] = (0.9, 0.99),
    ) -> None:
        if not 0 < adamw_lr < math.inf:
            raise ValueError(f"adamw_lr must be positive and finite, got {adamw_lr}")
        first, second = adamw_betas
        groups = [group | {"lr": lr if group["muon"] else adamw_lr} for group in groups]
        super().__init__(groups, {"lr": lr, "weight_decay": weight_decay})
        self._parts: list[tuple[Optimizer, list[nn.Parameter]]] = []
        for group in self.param_groups:
            if group["muon"]:
                own = [nn.Parameter(parameter.detach().flatten(1)) for parameter in group["params"]]
                part: Optimizer = Muon(own, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw")
            else:
                own = group["params"]
                part = AdamW(
                    own, adamw_lr, (first, second), weight_decay=weight_decay, foreach=True
                )  # fused on a CPU is wrong if layouts differ
            self._parts.append((part, own))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group, (part, own) in zip(self.param_groups, self._parts, strict=True):
            part.param_groups[0].update({name: group[name] for name in ("lr", "weight_decay")})
            for parameter, alias in zip(group["params"], own, strict=True):
                part.state[alias] = self.state[parameter]  # the dict that the checkpoint holds
                if group["muon"]:
                    alias.data = parameter.detach().flatten(1).clone()  # in the same order if the channels are last
                    alias.grad = None if parameter.grad is None else parameter.grad.flatten(1)
            part.step()
            if group["muon"]:
                for parameter, alias in zip(group["params"], own, strict=True):
                    parameter.copy_(alias.view_as(parameter))
        return loss
