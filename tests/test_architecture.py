"""The rules of the design that imports can break."""

import ast
import sys
from pathlib import Path

import jaxtyping
import pytest
import torch

import guided_diffusion
from guided_diffusion.schedules import Cosine, perturb

PACKAGE = Path(guided_diffusion.__file__).parent
CORE = {  # what each noun of the core may import of the package, besides itself and ``utils.validation``
    "schedules": set(),
    "denoisers": {"schedules"},
    "classifiers": {"schedules"},
    "losses": {"schedules", "denoisers", "classifiers"},
    "oracles": {"schedules", "denoisers"},
    "guidance": {"schedules", "denoisers", "classifiers", "samplers"},
    "samplers": {"schedules", "denoisers"},
    "networks": {"denoisers"},
    "recipe": {"schedules", "denoisers", "guidance", "samplers"},
}
FLOORS = [
    {"utils"},
    set(CORE),
    {"data"},
    {"checkpoints"},
    {"evaluation"},
    {"training"},
    {"cli"},
    {"train", "sample", "evaluate", "export"},
]
"""The rule of arrows: a module imports from its own floor and the floors before it only."""


def files(part):
    return sorted((PACKAGE / part).rglob("*.py")) if (PACKAGE / part).is_dir() else [PACKAGE / f"{part}.py"]


def imports(file):
    """The modules that a file names in its imports, also inside functions, as absolute dotted names."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} has a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("part", CORE)
def test_the_core_imports_torch_and_itself_only(part):
    allowed = {"torch", "jaxtyping", "guided_diffusion"} | sys.stdlib_module_names
    if part == "oracles":
        allowed |= {"numpy"}  # its quadrature rules
    for file in files(part):
        assert {name.partition(".")[0] for name in imports(file)} <= allowed, file


def imported(part):
    """The parts of the package that a part imports, ``utils`` with its module."""
    for file in files(part):
        for name in imports(file):
            if name.startswith("guided_diffusion."):
                package, _, rest = name.removeprefix("guided_diffusion.").partition(".")
                yield f"utils.{rest.partition('.')[0]}" if package == "utils" else package


@pytest.mark.parametrize("part", CORE)
def test_modules_of_the_core_import_only_the_allowed_ones(part):
    assert set(imported(part)) <= CORE[part] | {part, "utils.validation"}


@pytest.mark.parametrize(("floor", "part"), [(n, part) for n, parts in enumerate(FLOORS) for part in sorted(parts)])
def test_a_module_imports_only_from_its_own_and_lower_layers(floor, part):
    below = set().union(*FLOORS[: floor + 1])
    assert {name.partition(".")[0] for name in imported(part)} <= below


def test_every_entry_of_the_package_belongs_to_a_layer():
    entries = {path.stem for path in PACKAGE.iterdir() if path.stem not in ("__init__", "__pycache__")}
    assert entries <= set().union(*FLOORS)
    assert len(entries) < 20


def test_the_package_never_imports_what_is_built_on_it():
    for file in PACKAGE.rglob("*.py"):
        assert not {name.partition(".")[0] for name in imports(file)} & {
            "experiments",
            "benchmarks",
            "tests",
            "notebooks",
        }


def test_the_imports_of_a_file_are_found_wherever_they_are(tmp_path):
    (tmp_path / "file.py").write_text("import a.b, c\nfrom d.e import f\ndef g():\n    import h\n")
    assert set(imports(tmp_path / "file.py")) == {"a.b", "c", "d.e.f", "h"}


def test_shapes_in_signatures_are_checked_in_the_tests():
    with pytest.raises(jaxtyping.TypeCheckError, match="'eps'"):
        perturb(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2), Cosine())
