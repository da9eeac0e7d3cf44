import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from guided_diffusion.utils.overrides import hydra_override, shell_override

FOLDERS = [
    *("/tmp/lr=0.1", "a,b", "a[1]", "it's", 'say "a"', 'it\'s "a"', "two words", " a ", "$HOME", "a#b", "{a}", "a}b{"),
    *("back\\slash", "ends in \\", "Größe/模型", "~/runs", "null", "true", "1e5", "007", "1_000", "${name}", "a\\${b}"),
    *(
        "(a)",
        "f(1)",
        "a:b",
        "a;b",
        "a&b",
        "a|b",
        "-m",
        "+a",
        "*",
        "a\tb",
        "a`b`",
        "!a",
        "[a]",
        "'a'",
        '"a"',
        "\\'",
        '\\"',
    ),
]


def read_back(override):
    """Return the value that a program gets: parsed by Hydra, then read from a config, which resolves interpolations."""
    (parsed,) = OverridesParser.create().parse_overrides([override])
    assert not parsed.is_sweep_override()
    return OmegaConf.create({"key": parsed.value()}).key


@pytest.mark.parametrize("folder", FOLDERS)
def test_an_override_is_read_back_as_it_was_meant(folder):
    assert read_back(hydra_override("key", folder)) == folder


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_shell_passes_an_override_on_as_it_was_meant(folder):
    assert shlex.split(shell_override("key", folder)) == [hydra_override("key", folder)]


@settings(max_examples=150, deadline=None, derandomize=True, database=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from("\\\"'${}[]=,#() "), min_size=1))
def test_any_text_is_read_back(text):
    assert read_back(hydra_override("key", text)) == text


@pytest.mark.parametrize("path", ["/runs/a-b_1.2/checkpoints/last.ckpt", "runs/a+b/2026-01-01_00-00-00_abcd"])
def test_a_usual_path_needs_no_quotes(path):
    assert shell_override("checkpoint", path) == f"checkpoint={path}"
