import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import guided_diffusion

ROOT = Path(guided_diffusion.__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("not in a checkout")
    if importlib.util.find_spec("hatchling") is None:
        pytest.skip("pip install hatchling to build the wheel without a network")
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--no-index",
        "-w",
        str(folder),
    ]
    subprocess.run([*command, str(ROOT)], check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.mark.slow
def test_the_wheel_holds_the_package_and_conf_only(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "guided_diffusion").rglob("*.*") if path.suffix != ".pyc"
    }
    expected |= {f"guided_diffusion/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "conf").rglob("*.yaml")}
    assert {"guided_diffusion/conf/train.yaml", "guided_diffusion/evaluation/report/report.html.j2"} <= expected
    assert names == expected


@pytest.mark.slow
def test_the_programs_of_the_wheel_find_conf(wheel, tmp_path):
    """Without a checkout, the unpacked package reads the folder inside it."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
        (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        assert "guided-diffusion-train = guided_diffusion.train:main" in archive.read(points).decode()
    help_of = [sys.executable, "-m", "guided_diffusion.train", "--cfg", "job", "+experiment=cfg_mnist"]
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    shown = subprocess.run(help_of, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert "name: cfg_mnist" in shown.stdout
    code = "import guided_diffusion.cli.config as c; print(c.CONFIG_PATH)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == str(tmp_path / "site" / "guided_diffusion" / "conf")
