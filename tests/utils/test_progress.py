import io
import sys

import pytest

from guided_diffusion.utils.progress import progress_bar


class Screen(io.StringIO):
    """A text stream that is a terminal if told so."""

    def __init__(self, terminal):
        super().__init__()
        self.terminal = terminal

    def isatty(self):
        return self.terminal


@pytest.mark.parametrize(("terminal", "seconds"), [(True, 0.5), (False, 10)])
def test_the_bar_is_drawn_more_often_in_a_terminal_than_in_a_log_file(terminal, seconds, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Screen(terminal))
    assert progress_bar(desc="sampling", total=3).mininterval == seconds


def test_the_bar_passes_the_items_on_and_shows_how_many_there_were(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Screen(False))
    assert list(progress_bar("abc", desc="rendering", total=3)) == ["a", "b", "c"]
    assert "rendering: 100%" in sys.stderr.getvalue()
    assert "3/3" in sys.stderr.getvalue()


@pytest.mark.parametrize("silence", [{"delay": 60}, {"disable": True}])
def test_a_quiet_bar_shows_nothing(silence, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Screen(False))
    list(progress_bar("abc", desc="rendering", total=3, leave=False, **silence))
    assert sys.stderr.getvalue().strip() == ""
