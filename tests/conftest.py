"""Fixtures for all tests. Importing this file switches on the check of shapes in signatures."""

from __future__ import annotations

import copy
import functools
import gc
import importlib
import logging
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

# Before torch is imported: one thread in each of pytest's processes, and in each program that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import jaxtyping
import pytest
import torch
import yaml
from torch import Tensor, nn

_cache = TemporaryDirectory(prefix="guided-diffusion-tests-")
os.environ.update(GUIDED_DIFFUSION_CACHE=_cache.name, WANDB_MODE="offline", WANDB_SILENT="true", HF_HUB_OFFLINE="1")

CHECKED_CALLS, CHECKED_LATER = 10, 20
"""In each test the shapes of the first calls of a function are checked, and those of every twentieth later call.

Loops call the same functions thousands of times, and checking every call takes longer than the calls.
"""
_jaxtyped, _calls = jaxtyping.jaxtyped, Counter()


def jaxtyped_sparingly(*, typechecker: object) -> Callable[[Callable], Callable]:
    """Return jaxtyping's decorator, which here checks some calls of a function, and is applied at the first of them."""
    decorate = _jaxtyped(typechecker=typechecker)

    def decorated(target: Callable) -> Callable:
        if isinstance(target, type):
            return decorate(target)
        checked = functools.cache(lambda: decorate(target))

        @functools.wraps(target)
        def call(*args: object, **kwargs: object) -> object:
            _calls[target.__code__] += 1  # the same for all closures of a function
            count = _calls[target.__code__]
            if count <= CHECKED_CALLS or count % CHECKED_LATER == 0:
                return checked()(*args, **kwargs)
            return target(*args, **kwargs)

        return call

    return decorated


# Before the package is imported. The numeric tower: a whole number is welcome where a float is asked for.
jaxtyping.jaxtyped = jaxtyped_sparingly
jaxtyping.install_import_hook("guided_diffusion", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

from guided_diffusion.denoisers import Denoiser, Labels, Prediction  # noqa: E402
from guided_diffusion.networks import UNet  # noqa: E402
from guided_diffusion.oracles.gaussian_mixture import GaussianMixture  # noqa: E402
from guided_diffusion.schedules import Cosine, LinearBeta, Schedule  # noqa: E402

if TYPE_CHECKING:
    from omegaconf import DictConfig
    from pytorch_lightning import Callback, Trainer

    from guided_diffusion.training.modules import DiffusionModule

# Hydra parses some 25 files for each config. libyaml does so ten times as fast as the loader that OmegaConf asks for.
yaml.SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

F64 = torch.float64
SLOW_TIMEOUT = 600
"""The time limit of a slow test, in seconds."""


def pytest_collection(session: pytest.Session) -> None:
    """Prepare a cheap collection; for the whole suite import Lightning first.

    While a module of the package is imported, the check of shapes hides the compiled files of all other packages, so
    that what the package imports first is compiled again. One file of tests alone may not need Lightning.
    """
    gc.disable()  # whatever the modules of tests make, stays: there is no garbage to look for
    if session.config.args_source is not pytest.Config.ArgsSource.ARGS:
        importlib.import_module("pytorch_lightning")


def pytest_collection_finish() -> None:
    """Spare the garbage collector the objects of imported modules: composing a config takes a tenth less time."""
    gc.enable()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """Let Hypothesis, which looks through all objects for its report, find them again."""
    gc.unfreeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark slow what ``one_schedule`` says, and give slow tests their own time limit."""
    for item in items:
        parameters = item.callspec.params if hasattr(item, "callspec") else {}
        if item.get_closest_marker("one_schedule") and not isinstance(parameters.get("schedule", Cosine()), Cosine):
            item.add_marker(pytest.mark.slow)
        if item.get_closest_marker("slow") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(SLOW_TIMEOUT))


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail a test that connects to anything but this machine."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise AssertionError(f"a test tried to reach {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)
    _calls.clear()


@pytest.fixture
def heeds_hangup() -> Iterator[None]:
    """Let SIGHUP have its default handler, also where the tests run under ``nohup``."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


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
    """Return ``x_t, t, y`` for the mixture: every class at early, middle and late times."""
    return torch.randn(9, 2, dtype=F64), torch.linspace(0.05, 1, 9, dtype=F64), torch.arange(9) % 3


class ExactBackbone(nn.Module):
    """The exact denoiser of a mixture as a network: it takes the log-SNR and outputs v."""

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
    """The exact denoiser as a module, in place of a trained model."""
    return Denoiser(ExactBackbone(mixture), mixture.schedule, "v")


@pytest.fixture
def perturbed() -> Callable[[nn.Module], nn.Module]:
    """Set all parameters of a network to random values, as after training."""

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
    """A denoiser that records the labels of each call."""

    def __init__(self, denoise: Callable[..., Prediction]) -> None:
        self.denoise = denoise
        self.calls: list[list[int] | None] = []

    def __call__(self, x_t: Tensor, t: Tensor, y: Labels) -> Prediction:
        self.calls.append(None if y is None else y.tolist())
        return self.denoise(x_t, t, y)


@pytest.fixture
def counted() -> type[Counted]:
    return Counted


class OnDevice(Tensor):
    """A tensor on a fake device without float64, like Apple's GPUs; ``cpu()`` returns a plain tensor."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        with torch._C.DisableTorchFunctionSubclass():
            made = function(*args, **kwargs or {})
        if function is Tensor.cpu:
            return made.as_subclass(Tensor)
        return cls.place(made) if isinstance(made, Tensor) else made

    @classmethod
    def place(cls, tensor: Tensor) -> OnDevice:
        if tensor.dtype == F64:
            raise TypeError("the device has no float64")
        return tensor.as_subclass(cls)


@pytest.fixture
def on_device() -> Callable[[Tensor], Tensor]:
    """Return a function that moves a tensor to a fake device, on which float64 raises ``TypeError``."""
    return OnDevice.place


# Fixtures for tests that train or run programs. They import what they need inside, so that other tests start fast.

CLASSIFIER = ("module=classifier", "network=classifier_8", "guidance=classifier", "callbacks=classifier")
"""The overrides that train a classifier instead of a diffusion model."""

TINY = (
    "data=fake",
    "network=unet_8",
    "module/optimizer=adamw",
    "network.width=8",
    "sampler.steps=2",
    "scales=[0,1,3]",
    "judge.steps=2",
    "judge.width=8",
    "callbacks.accuracy.num_samples=20",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
    "trainer.precision=32-true",
)
"""Overrides for a training of about a second: four steps on random images, and every file that a run writes.

They take the plain network and optimizer; ``FAST`` has those of the default.
"""


TINY_POINTS = (
    "network.width=8",
    "data.num_train=100",
    "data.num_test=20",
    "data.batch_size=32",
    "data.validation_size=30",
    "sampler.steps=3",
    "scales=[0,1,3]",
    "callbacks.sample_grid.num_samples=5",
    "callbacks.distance.num_samples=9",
    "trainer.max_steps=4",
    "trainer.val_check_interval=2",
    "trainer.log_every_n_steps=1",
    "trainer.accelerator=cpu",
)
"""The same for experiments on points."""


FAST = (
    *("network=unet_8_fast", "network.head_channels=8", "module/optimizer=muon", "time_sampling=log_normal"),
    "callbacks.ema.warm_up=21",
)
"""The overrides of the tiny training that take the network, optimizer and times of the fast experiments."""


@pytest.fixture(scope="session")
def fast_recipe() -> tuple[str, ...]:
    return FAST


@pytest.fixture(scope="session")
def tiny_points() -> tuple[str, ...]:
    return TINY_POINTS


@pytest.fixture(scope="session")
def tiny() -> tuple[str, ...]:
    return TINY


@pytest.fixture(scope="session")
def classifier_overrides() -> tuple[str, ...]:
    return CLASSIFIER


@pytest.fixture(scope="session")
def compose() -> Callable[..., DictConfig]:
    """Return a function that composes the config of a program from overrides."""
    from hydra import compose, initialize_config_dir

    from guided_diffusion.cli.config import CONFIG_PATH, register

    @functools.cache
    def composed(program: str, *overrides: str) -> DictConfig:
        register()
        with initialize_config_dir(CONFIG_PATH, version_base="1.3"):
            return compose(program, list(overrides))

    def copied(*overrides: str, program: str = "train", output_dir: Path | None = None) -> DictConfig:
        config = copy.deepcopy(composed(program, *overrides))
        if output_dir:
            config.output_dir = str(output_dir)
        return config

    return copied


@pytest.fixture
def fit(compose: Callable[..., DictConfig], tmp_path: Path) -> Callable[..., tuple[Trainer, DiffusionModule]]:
    """Return a function that trains the tiny config with the given overrides and callbacks."""
    from omegaconf import OmegaConf
    from pytorch_lightning.callbacks import Checkpoint, ProgressBar

    from guided_diffusion.checkpoints.record import build_network, make_record
    from guided_diffusion.utils.instantiate import build

    def fitted(
        *overrides: str,
        callbacks: Sequence[Callback] = (),
        logger: object = False,
        ckpt_path: Path | None = None,
        **trainer_arguments: object,
    ) -> tuple[Trainer, DiffusionModule]:
        config = compose(*TINY, *overrides, output_dir=tmp_path)
        torch.manual_seed(0)
        data = build(config.data)
        module = build(config.module, network=build_network(config.network, data.shape, data.num_classes))
        module.record = make_record(module.kind, OmegaConf.to_container(config, resolve=True), data)
        trainer = build(
            config.trainer,
            callbacks=list(callbacks),
            logger=logger,
            enable_progress_bar=any(isinstance(one, ProgressBar) for one in callbacks),
            enable_checkpointing=any(isinstance(one, Checkpoint) for one in callbacks),
            **trainer_arguments,
        )
        trainer.fit(module, datamodule=data, ckpt_path=ckpt_path)
        return trainer, module

    return fitted


@pytest.fixture(scope="session")
def trained_once(compose: Callable[..., DictConfig], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that trains with some overrides and returns the folder, once for all processes of pytest."""
    from guided_diffusion.cli.train import train
    from guided_diffusion.utils.locks import file_lock

    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def trained(name: str, *overrides: str) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with file_lock(shared / f"{name}.lock", f"another process trains {name}"):
            if not done.exists():
                train(compose(*overrides, output_dir=folder))
                done.touch()
        return folder

    return trained


@pytest.fixture(scope="session")
def run_dir(trained_once: Callable[..., Path]) -> Path:
    """Return the folder of a tiny training. Tests must not change it."""
    return trained_once("run", *TINY)


@pytest.fixture(scope="session")
def fast_run(trained_once: Callable[..., Path]) -> Path:
    """Return the folder of a tiny training of the fast network with Muon on colour images. Do not change it."""
    return trained_once("fast", *TINY, *FAST, "data.channels=3")


@pytest.fixture(scope="session")
def points_run(trained_once: Callable[..., Path]) -> Path:
    """Return the folder of a tiny training on points. Tests must not change it."""
    return trained_once("points", "+experiment=cfg_patterns", *TINY_POINTS)


@pytest.fixture(scope="session")
def classifier_run(trained_once: Callable[..., Path], run_dir: Path) -> Path:
    """Return the folder of a tiny training of a classifier that guides the model of ``run_dir``. Do not change it."""
    return trained_once("classifier", *TINY, *CLASSIFIER, f"callbacks.guide={run_dir / 'checkpoints' / 'last.ckpt'}")


@dataclass
class Called:
    """Exit status and output of a program."""

    status: int
    out: str
    err: str


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., Called]]:
    """Return a function that runs ``python -m guided_diffusion.<program>`` in this process, in an empty folder."""
    import importlib

    from hydra.core.hydra_config import HydraConfig

    monkeypatch.chdir(tmp_path)
    root = logging.getLogger()
    before = root.handlers[:], root.level

    def called(program: str, *arguments: str) -> Called:
        monkeypatch.setattr(sys, "argv", [f"{program}.py", *arguments])
        status = 0
        capfd.readouterr()
        try:
            importlib.import_module(f"guided_diffusion.{program}").main()
        except SystemExit as error:
            status = int(error.code or 0)
        return Called(status, *capfd.readouterr())

    yield called
    HydraConfig.instance().cfg = None  # it is left by a job that a launcher refused
    root.handlers[:], root.level = before  # Hydra's own write to the captured stdout


@pytest.fixture(scope="session")
def inception_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of random weights for the Inception network of torch-fidelity, which must be installed."""
    extractor = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = tmp_path_factory.mktemp("inception") / "weights.pth"
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng():
        torch.manual_seed(0)
        patch.setattr(extractor, "load_state_dict_from_url", lambda *_, **__: None)
        patch.setattr(extractor.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = extractor.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
        for layer in network.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        torch.save({name: tensor.half() for name, tensor in network.state_dict().items()}, path)
    return path


@pytest.fixture
def shell(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run Python as in a shell, in a folder where nothing of the tests is imported."""

    import guided_diffusion

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        environment = os.environ | {"PYTHONPATH": str(Path(guided_diffusion.__file__).parent.parent), "PATH": path}
        is_for_python = str(arguments[0]).startswith("-") or str(arguments[0]).endswith(".py")
        command = [sys.executable, *arguments] if is_for_python else arguments
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    return run
