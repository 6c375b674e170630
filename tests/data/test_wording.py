"""Names from files in a message: few, on one line, and how many are left out."""

from kdtoolkit.data.wording import listed, shown, some

NAMES = {"c": 1, "a": 2, "d\n": 3, "b": 4}


def test_names_in_their_own_order_and_in_alphabetical_order():
    assert listed(NAMES) == r"c, a, d\n and 1 more"
    assert some(NAMES) == "a, b, c and 1 more"
    assert listed(NAMES, most=4) == r"c, a, d\n, b"
    assert (listed([]), some(iter("ba"))) == ("", "a, b")


def test_text_from_elsewhere_is_one_short_line():
    assert shown("a\0b\n") == r"a\x00b\n"
    assert shown("x" * 300) == 200 * "x" + "..."
