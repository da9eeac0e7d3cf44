import copy
import csv

import pytest
import torch
from torch import nn

from guided_diffusion.classifiers import Classifier
from guided_diffusion.networks import (
    MLP,
    FastUNet,
    NoisyClassifier,
    NoisyCNNClassifier,
    NoisyMLPClassifier,
    UNet,
)
from guided_diffusion.schedules import Cosine
from guided_diffusion.training.optimizers import MuonWithAdamW, hidden_and_other


def network():
    torch.manual_seed(0)
    return FastUNet(1, 8, 3, width=8, patch_size=1, head_channels=8)


def names(module, group):
    ids = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in module.named_parameters() if id(parameter) in ids}


@pytest.mark.parametrize(
    "module", [network(), UNet(1, 8, 3, width=8, multipliers=(1, 2), blocks=1)], ids=["fast_unet", "unet"]
)
def test_hidden_weights_are_those_of_inner_convolutions_and_linear_layers(module):
    hidden, other = (names(module, group) for group in hidden_and_other(module))
    assert hidden | other == {name for name, _ in module.named_parameters()}
    assert not hidden & other
    assert {"input.weight", "output.weight", "condition.label.weight"} < other
    assert "condition.output.weight" in hidden
    assert all(name.endswith("weight") and "norm" not in name for name in hidden)
    assert not any(name.endswith("conv_2.weight") for name in other)


def weights_of_layers(module):
    """The names of the weights of convolutions and linear layers that are not hidden, and of those that are."""
    layers = {f"{name}.weight" for name, layer in module.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d)}
    hidden, other = hidden_and_other(module)
    return names(module, other) & layers, names(module, hidden)


def test_a_network_of_linear_layers_has_hidden_weights_between_the_first_and_the_last():
    outer, hidden = weights_of_layers(MLP(2, 4, width=8))
    assert outer == {"hidden.0.linear.weight", "output.weight"}
    assert {"hidden.1.linear.weight", "hidden.0.scale_shift.weight", "condition.output.weight"} < hidden


@pytest.mark.parametrize(
    ("network", "ends"),
    [
        (NoisyClassifier(1, 8, 3, width=8, multipliers=(1, 2)), {"input", "pool.output"}),
        (NoisyCNNClassifier(1, 8, 3, width=4), {"stages.0.conv", "logits"}),
        (NoisyMLPClassifier(2, 3, width=8), {"hidden.0.linear", "output"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, nn.Module) else "",
)
def test_the_logits_of_a_classifier_are_no_hidden_layer(network, ends):
    outer, hidden = weights_of_layers(Classifier(network, Cosine()))
    assert outer == {f"backbone.{name}.weight" for name in ends}
    assert hidden


def with_gradients(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return module


@pytest.mark.parametrize("ns_steps", [3, 5])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_equals_torch_muon_on_matrices_and_adamw_on_the_rest(memory_format, ns_steps):
    module = network().to(memory_format=memory_format)
    hidden, other = hidden_and_other(module)
    matrices = [nn.Parameter(parameter.detach().flatten(1).clone()) for parameter in hidden["params"]]
    rest = [nn.Parameter(parameter.detach().clone()) for parameter in other["params"]]
    expected = (
        torch.optim.Muon(
            matrices, lr=0.01, weight_decay=0.1, momentum=0.8, ns_steps=ns_steps, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(rest, lr=0.02, weight_decay=0.1, betas=(0.8, 0.9)),
    )
    optimizer = MuonWithAdamW([hidden, other], 0.01, 0.8, 0.1, 0.02, (0.8, 0.9), ns_steps)
    for step in range(3):
        with_gradients(module, step)
        for parameter, copied in zip(hidden["params"], matrices, strict=True):
            copied.grad = parameter.grad.flatten(1).clone()
        for parameter, copied in zip(other["params"], rest, strict=True):
            copied.grad = parameter.grad.clone()
        optimizer.step()
        for one in expected:
            one.step()
    for parameter, copied in zip(hidden["params"], matrices, strict=True):
        torch.testing.assert_close(parameter.flatten(1), copied)
    for parameter, copied in zip(other["params"], rest, strict=True):
        torch.testing.assert_close(parameter, copied)


def test_the_update_of_hidden_weights_has_the_stated_size():
    module = with_gradients(network(), 0)
    hidden, other = hidden_and_other(module)
    before = [parameter.detach().clone() for parameter in hidden["params"]]
    MuonWithAdamW([hidden, other], lr=0.01, weight_decay=0.0).step()
    for old, new in zip(before, hidden["params"], strict=True):
        assert (new - old).detach().square().mean().sqrt().item() == pytest.approx(0.2 * 0.01, rel=0.35)


def test_a_step_after_loading_the_state_equals_one_without_a_break():
    """Also for a weight that had no gradient yet."""
    module = with_gradients(network(), 0)
    module.condition.output.weight.grad = module.input.weight.grad = None
    optimizer = MuonWithAdamW(hidden_and_other(module))
    optimizer.step()

    twin = copy.deepcopy(module)
    again = MuonWithAdamW(hidden_and_other(twin))
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for one, other in ((optimizer, module), (again, twin)):
        with_gradients(other, 1)
        one.step()
    pairs = zip(module.parameters(), twin.parameters(), strict=True)
    assert all(torch.equal(first, second) for first, second in pairs)


def test_learning_rates_are_those_of_the_groups_at_each_step():
    module = network()
    optimizer = MuonWithAdamW(hidden_and_other(module), weight_decay=0.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(module.state_dict())
    with_gradients(module, 0)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_weights_without_a_gradient_stay():
    module = with_gradients(network(), 0)
    module.condition.output.weight.grad = None
    module.input.weight.grad = None
    before = copy.deepcopy(module.state_dict())
    MuonWithAdamW(hidden_and_other(module)).step()
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]) == (name in {"condition.output.weight", "input.weight"})


def test_the_gradients_of_the_closure_are_used_and_its_loss_is_returned():
    module = network()
    optimizer = MuonWithAdamW(hidden_and_other(module))
    before = module.middle[0].conv_1.weight.detach().clone()

    def closure():
        loss = sum(parameter.square().sum() for parameter in module.parameters())
        loss.backward()
        return loss

    assert optimizer.step(closure) > 0
    assert not torch.equal(module.middle[0].conv_1.weight, before)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lr": -1.0}, "Learning rate"),
        ({"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1"),
        ({"weight_decay": -0.1}, "weight.decay"),
        ({"adamw_lr": 0.0}, "adamw_lr must be positive and finite, got 0"),
        ({"adamw_betas": (0.9, 1.0)}, "beta"),
        ({"ns_steps": 0}, "ns_steps must be a whole number from 1 to 99, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MuonWithAdamW(hidden_and_other(network()), **settings)


def test_a_network_without_hidden_weights_is_refused():
    with pytest.raises(ValueError, match="hidden weights and others: add module/optimizer=adamw"):
        MuonWithAdamW(hidden_and_other(nn.Linear(2, 2)))


def test_a_training_with_muon_logs_both_learning_rates(fast_run):
    """They fall linearly to almost 0 after the warm-up, in the same proportion."""
    with (fast_run / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row["train/learning_rate/muon"]]
    muon, adamw = ([float(row[f"train/learning_rate/{name}"]) for row in rows] for name in ("muon", "adamw"))
    assert len(rows) == 4
    assert muon == sorted(muon, reverse=True)
    assert [one / other for one, other in zip(muon, adamw, strict=True)] == pytest.approx([7 / 5] * 4, rel=1e-3)
