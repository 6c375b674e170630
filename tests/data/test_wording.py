"""Names from files in a message: few, on one line, and how many are left out."""

import os

import pytest

from kdtoolkit.data.wording import is_line, listed, shown, some

NAMES = {"c": 1, "a": 2, "d\n": 3, "b": 4}


def test_names_in_their_own_order_and_in_alphabetical_order():
    assert listed(NAMES) == r"c, a, d\n and 1 more"
    assert some(NAMES) == "a, b, c and 1 more"
    assert listed(NAMES, most=4) == r"c, a, d\n, b"
    assert (listed([]), some(iter("ba"))) == ("", "a, b")


def test_text_from_elsewhere_is_one_short_line():
    assert shown("a\0b\n") == r"a\x00b\n"
    assert shown("x" * 300) == 200 * "x" + "..."


@pytest.mark.parametrize("value", ["", "a\nb", "a\r", 1, b"a", None, os.fsdecode(b"latin-\xe9")])
def test_what_is_no_line(value):
    assert not is_line(value)
    assert is_line("großer Käfer")
