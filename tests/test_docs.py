"""docs/settings.md lists exactly the groups, options and keys that exist."""

import re
from collections import defaultdict
from dataclasses import fields
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from guided_diffusion.cli.config import (
    CONFIG_PATH,
    EvaluateConfig,
    ExportConfig,
    SampleConfig,
    TrainConfig,
    key_of,
)

CONF = Path(CONFIG_PATH)
SCHEMAS = {"train": TrainConfig, "sample": SampleConfig, "evaluate": EvaluateConfig, "export": ExportConfig}
PAGE = Path(__file__).parents[1] / "docs" / "settings.md"
GROUPS = sorted(folder.relative_to(CONF).as_posix() for folder in CONF.rglob("*") if folder.is_dir())


def tables():
    """Yield the cells of each row of each table of the page."""
    for line in PAGE.read_text().splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


@pytest.fixture(scope="module")
def documented():
    """The text of the page for each group."""
    return {cells[0].strip("`"): cells[1] for cells in tables() if len(cells) == 2 and cells[0].strip("`") in GROUPS}


def test_every_group_is_documented(documented):
    assert sorted(documented) == GROUPS


@pytest.mark.parametrize("group", GROUPS)
def test_every_option_of_a_group_is_documented(group, documented):
    named = set(re.findall(r"`(\w+)`", documented[group]))
    assert {path.stem for path in (CONF / group).glob("*.yaml")} <= named


@pytest.mark.parametrize("group", GROUPS)
def test_every_documented_key_of_a_group_exists(group, documented, compose):
    options = [path.stem for path in (CONF / group).glob("*.yaml")]
    before = ("module=classifier",) if group == "module/adversarial" else ()
    chosen = [()] if group in ("experiment", "trainer", "module") else [(*before, f"{group}={one}") for one in options]
    missing = set(re.findall(r"`(\w+(?:\.\w+)+)(?:=[^`]*)?`", documented[group]))
    while missing and chosen:
        config = compose(*chosen.pop())
        missing = {key for key in missing if OmegaConf.select(config, key, default="absent") == "absent"}
    assert not missing


def test_every_key_at_the_top_is_documented_with_its_programs():
    rows = defaultdict(set)
    for cells in tables():
        if len(cells) == 3:
            rows[cells[0].strip("`")] |= set(re.findall(r"\w+", cells[1]))
    having = defaultdict(set)
    for program, schema in SCHEMAS.items():
        for field in fields(schema):
            having[key_of(field.name)].add(program)
    assert rows == {key: programs for key, programs in having.items() if key not in GROUPS}


def test_the_class_of_every_guidance_is_named():
    page = " ".join((PAGE.parent / "methods" / "README.md").read_text().split())
    for path in (CONF / "guidance").glob("*.yaml"):
        name = OmegaConf.load(path)._target_.rpartition(".")[2]
        assert f"`{path.stem}` is `{name}`" in page
