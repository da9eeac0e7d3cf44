import pytest
import torch
from torch import nn

from guided_diffusion.networks import JudgeNet, LeNet, ResidualJudge

every_network = pytest.mark.parametrize("network", [JudgeNet, LeNet, ResidualJudge])


@pytest.mark.parametrize(("network", "num_features"), [(JudgeNet, 128), (LeNet, 84), (ResidualJudge, 64)])
@pytest.mark.parametrize(
    ("channels", "image_size"),
    [(1, (8, 8)), (3, (17, 17)), (2, (12, 20)), (4, (30, 22)), (1, (9, 1)), (1, (3, 40)), (5, (1, 1))],
)
def test_logits_and_features_of_images_of_any_size(channels, image_size, network, num_features):
    judge, x = network(channels, image_size, 10, width=8), torch.randn(2, channels, *image_size)
    assert judge(x).shape == (2, 10)
    assert judge.features(x).shape == (2, num_features)


@every_network
def test_logits_are_linear_in_the_features(network):
    judge, x = network(1, 8, 10).eval(), torch.randn(2, 1, 8, 8)
    assert torch.equal(judge(x), judge.logits(judge.features(x)))


@pytest.mark.parametrize("network", [JudgeNet, ResidualJudge])
def test_a_judge_may_drop_features_in_training(network):
    judge, x = network(1, 8, 10), torch.randn(2, 1, 8, 8)
    assert not torch.equal(judge(x), judge(x))


@every_network
def test_features_of_a_sample_do_not_depend_on_its_batch(network):
    judge, x = network(1, 8, 10).eval(), torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(judge.features(x[1:2]), judge.features(x)[1:2], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [JudgeNet, LeNet])
def test_the_smaller_judges_never_mix_samples(network):
    judge, x = network(1, 8, 10), torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(judge.features(x[1:2]), judge.features(x)[1:2], rtol=1e-4, atol=1e-5)
    assert not any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in judge.modules())


@every_network
def test_it_learns_to_tell_dark_images_from_bright_ones(network, generator):
    judge, y = network(1, 8, 2, width=8), torch.arange(64) % 2
    x = torch.where(y == 1, 0.5, -0.5)[:, None, None, None] + 0.1 * torch.randn(64, 1, 8, 8, generator=generator)
    optimizer = torch.optim.Adam(judge.parameters(), lr=1e-2)
    for _ in range(10):
        optimizer.zero_grad()
        nn.functional.cross_entropy(judge(x), y).backward()
        optimizer.step()
    assert (judge.eval()(x).argmax(1) == y).all()
