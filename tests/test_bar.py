"""The line of progress of what is counted."""

import io

import pytest

from kdtoolkit import _bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def tick(monkeypatch):
    """A clock that shows one second more each time."""
    times = iter(range(1000))
    monkeypatch.setattr(_bar.time, "monotonic", lambda: next(times))


def test_on_a_terminal(tick):
    stream = Terminal()
    assert list(_bar.counted("abcd", 4, "reading", stream)) == list("abcd")
    lines = stream.getvalue().split("\r\x1b[K")
    # After one of four, a second each: three are left.
    assert lines[1] == "reading  1/4 [#####...............]  0:03 left"
    assert lines[4:] == ["reading  4/4 [####################]  0:00 left", ""]


def test_elsewhere_and_where_it_is_quick(tick, monkeypatch):
    stream = io.StringIO()
    assert list(_bar.counted(range(3), 3, "reading", stream)) == [0, 1, 2]
    monkeypatch.setattr(_bar.time, "monotonic", lambda: 0)
    terminal = Terminal()
    assert list(_bar.counted(range(3), 3, "reading", terminal)) == [0, 1, 2]
    assert stream.getvalue() == terminal.getvalue() == ""


def test_clock():
    assert [_bar.clock(s) for s in (5, 65, 3725)] == ["0:05", "1:05", "1:02:05"]
