import copy

import pytest
import torch
from torch import nn

from guided_diffusion.networks import MLP, FastUNet, UNet
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


def test_a_network_of_linear_layers_has_hidden_weights_too():
    hidden, other = hidden_and_other(MLP(2, 4, 3))
    assert len(hidden["params"]) > 2
    assert all(parameter.ndim == 2 for parameter in hidden["params"])
    assert len(other["params"]) > 2


def with_gradients(module, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in module.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    return module


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_step_equals_torch_muon_on_matrices_and_adamw_on_the_rest(memory_format):
    module = network().to(memory_format=memory_format)
    hidden, other = hidden_and_other(module)
    matrices = [nn.Parameter(parameter.detach().flatten(1).clone()) for parameter in hidden["params"]]
    rest = [nn.Parameter(parameter.detach().clone()) for parameter in other["params"]]
    expected = (
        torch.optim.Muon(matrices, lr=0.01, weight_decay=0.1, momentum=0.8, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=0.02, weight_decay=0.1, betas=(0.8, 0.9)),
    )
    optimizer = MuonWithAdamW([hidden, other], 0.01, 0.8, 0.1, 0.02, (0.8, 0.9))
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
    module = network()
    optimizer = MuonWithAdamW(hidden_and_other(module))
    with_gradients(module, 0)
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
