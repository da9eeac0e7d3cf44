"""What every test shares. Importing this file switches on the check of the shapes in signatures."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from tempfile import TemporaryDirectory

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

_cache = TemporaryDirectory(prefix="guided-diffusion-tests-")
os.environ.update(GUIDED_DIFFUSION_CACHE=_cache.name, WANDB_MODE="offline", WANDB_SILENT="true", HF_HUB_OFFLINE="1")

# Before the package is imported. The numeric tower: a whole number is welcome where a float is asked for.
jaxtyping.install_import_hook(
    "guided_diffusion", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))"
)

from guided_diffusion.denoisers import Denoiser, Labels, Prediction  # noqa: E402
from guided_diffusion.networks import UNet  # noqa: E402
from guided_diffusion.oracles import GaussianMixture  # noqa: E402
from guided_diffusion.schedules import Cosine, LinearBeta, Schedule  # noqa: E402

F64 = torch.float64


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to anywhere but this machine is an error."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(params=[Cosine(), LinearBeta()], ids=lambda schedule: type(schedule).__name__)
def schedule(request: pytest.FixtureRequest) -> Schedule:
    return request.param


@pytest.fixture
def mixture(schedule: Schedule) -> GaussianMixture:
    """Four correlated Gaussians of three classes in the plane, in float64."""
    factors = torch.randn(4, 2, 2, dtype=F64) / 4
    return GaussianMixture(
        schedule,
        means=torch.tensor([[0.5, 0.5], [-0.5, 0.5], [0.0, -0.5], [0.5, -0.5]], dtype=F64),
        covariances=factors @ factors.mT + 0.02 * torch.eye(2, dtype=F64),
        weights=torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=F64),
        labels=torch.tensor([0, 1, 2, 2]),
    )


@pytest.fixture
def noisy() -> tuple[Tensor, Tensor, Tensor]:
    """``x_t, t, y`` for the mixture: every class at early, middle and late times."""
    return torch.randn(9, 2, dtype=F64), torch.linspace(0.05, 1, 9, dtype=F64), torch.arange(9) % 3


class ExactBackbone(nn.Module):
    """A mixture's denoiser in the form of a network: it outputs v, and is told the log-SNR."""

    def __init__(self, mixture: GaussianMixture) -> None:
        super().__init__()
        self.mixture = mixture
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x_t: Tensor, log_snr: Tensor, y: Labels) -> Tensor:
        schedule = self.mixture.schedule
        prediction = self.mixture(x_t, schedule.time(log_snr), y)
        alpha, sigma = (value[:, None] for value in schedule(schedule.time(log_snr)))
        return alpha * prediction.eps - sigma * prediction.x0


@pytest.fixture
def exact(mixture: GaussianMixture) -> Denoiser:
    """The mixture's denoiser as a module, for what samples with a trained model."""
    return Denoiser(ExactBackbone(mixture), mixture.schedule, "v")


@pytest.fixture
def perturbed() -> Callable[[nn.Module], nn.Module]:
    """A network as it might be after training: none of its parameters at zero."""

    def perturb(network: nn.Module) -> nn.Module:
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.1)
        return network

    return perturb


@pytest.fixture
def network(perturbed: Callable[[nn.Module], nn.Module]) -> UNet:
    """A small U-Net of three classes, in eval mode."""
    return perturbed(UNet(1, 8, 3, width=8, multipliers=(1, 2), blocks=1)).eval()


class Counted:
    """A denoiser that notes the labels of each of its calls."""

    def __init__(self, denoise: Callable[..., Prediction]) -> None:
        self.denoise = denoise
        self.calls: list[list[int] | None] = []

    def __call__(self, x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        self.calls.append(None if y is None else y.tolist())
        return self.denoise(x_t, t, y)


@pytest.fixture
def counted() -> type[Counted]:
    return Counted
