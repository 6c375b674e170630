"""Tables of text: in a pipe as wide as they are, on a terminal as wide as that."""

import io
import sys

import pytest

from kdtoolkit._tables import aligned

CELLS = [
    ("file", "bytes", "accuracy"),
    ("[bold]a:smile:", "12,345", "-"),
    ("学生", "1", "91.20%"),
]


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture(autouse=True)
def forced(monkeypatch):
    """What must not matter where nobody looks at a terminal."""
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "12")


def test_columns():
    """A cell is what it says, and as wide as it is shown: each of 学生 as two characters."""
    assert aligned(CELLS).splitlines() == [
        "          file   bytes  accuracy",
        "--------------------------------",
        "[bold]a:smile:  12,345         -",
        "          学生       1    91.20%",
    ]
    head, _, *rows = aligned(CELLS).splitlines()
    assert aligned(CELLS, rule=False).splitlines() == [head, *rows]
    assert aligned(CELLS, left=1).splitlines()[-1] == "学生                 1    91.20%"


def test_lines_in_a_pipe_are_as_long_as_they_are():
    text = aligned([("heading", "number"), ("word " * 1000 + "end", "1")], left=1)
    assert len(text.splitlines()) == 3
    assert text.splitlines()[2] == "word " * 1000 + "end" + " " * 7 + "1"


def test_cells_are_folded_on_a_narrow_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "24")
    monkeypatch.setattr(sys, "stdout", Terminal())
    lines = aligned([("name", "number"), ("a" * 20 + "b" * 10, "1,234")], left=1).splitlines()
    assert max(map(len, lines)) <= 24
    assert "".join(line.split()[0] for line in lines[2:]) == "a" * 20 + "b" * 10
    assert "\x1b" not in "".join(lines)
