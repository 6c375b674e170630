"""The page as a reader's browser has it."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure
from scipy import ndimage

from kdtoolkit.report import Code, Picture, Section, Table, pictures, write_page
from tests.report.browser import NEEDS_CHROMIUM, Browser, drawn

DRAWN = True
ROWS = [
    {"variant": "original", "test_accuracy": 0.9, "bytes": 1000, "ms": 2.0},
    {"variant": "80% <sparse>", "test_accuracy": 0.875, "bytes": 250, "ms": None},
]
COLUMNS = {"variant": ("variant", ""), "test_accuracy": ("accuracy", ".1%"), "bytes": ("B", ",d")}


@pytest.fixture
def page(tmp_path):
    path = tmp_path / "report.html"
    charts = {"bytes": "bytes", "ms": "milliseconds"}
    shown = [Picture(pictures.front(ROWS, key, name), f"<{name}>") for key, name in charts.items()]
    code = Code("print('<b>')", "Run & see")
    section = Section("C & D", [Table.of(ROWS, COLUMNS), *shown, "one < two", code])
    write_page(path, "A & B", [section], {"command": "compress --model=a&b"})
    return path


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.open, self.svgs, self.links, self.ids = [], None, 0, [], []

    def handle_starttag(self, tag, attributes):
        self.open = tag
        self.svgs += tag == "svg"
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href")]
        self.ids += [v for k, v in attributes if k == "id"]

    def handle_data(self, text):
        if self.open in ("td", "th") and text.strip():
            self.cells.append(text)


def test_content_is_what_was_given(page):
    reader, text = Reader(), page.read_text()
    reader.feed(text)
    headings, cells = ["variant", "accuracy", "B"], ["original", "90.0%", "1,000"]
    assert reader.cells == [*headings, *cells, "80% <sparse>", "87.5%", "250"]
    assert reader.svgs == 2
    assert len(set(reader.ids)) == len(reader.ids) > 0  # as HTML demands, of all plots together
    for shown in ("<h1>A &amp; B</h1>", "<h2>C &amp; D</h2>", "compress --model=a&amp;b"):
        assert shown in text
    for shown in ("one &lt; two", "&lt;b&gt;", "<p>Run &amp; see</p>", "&lt;bytes&gt;"):
        assert shown in text


def test_columns_of_numbers_are_set_to_the_right():
    rows = [["a", "b", "c", "d"], ["1,000", "x", "-", "12.5% ± 0.31"], ["+2.5", "1", "3e-07", "-"]]
    assert Table(rows).numeric == [True, False, True, True]
    assert Table([["a", "b"]]).numeric == [False, False]


def test_only_some_points_are_named():
    rows = [{**row, "told": row["variant"] == "original"} for row in ROWS]
    counts = []
    for named in (None, "told"):
        (axes,) = pictures.front(rows, "bytes", "bytes", named=named).axes
        counts.append([text.get_text() for text in axes.texts])
    assert counts == [["80% <sparse>", "original"], ["original"]]  # from left to right


def test_same_arguments_make_the_same_bytes(page, tmp_path):
    def written(name):
        section = Section("", [Picture(pictures.front(ROWS, "bytes", "bytes"), "")])
        write_page(tmp_path / name, "title", [section])
        return (tmp_path / name).read_bytes()

    assert written("a") == written("b")


def test_nothing_comes_from_elsewhere(page):
    reader = Reader()
    reader.feed(page.read_text())
    assert all(link.startswith("#") or link == "data:," for link in reader.links)
    assert not re.search(r"url\((?!#)|@import", page.read_text())


@NEEDS_CHROMIUM
def test_page_in_a_browser(page, tmp_path):
    """Three points in the accent's colour, of light and of dark, which no other text has."""
    browser = Browser(tmp_path / "user")
    try:
        for width, dark, accent in ((1280, False, "0b5cad"), (400, True, "6db3f2")):
            pixels = browser.open(page, width, dark)
            color = list(bytes.fromhex(accent))
            assert ndimage.label((np.abs(pixels - color) < 12).all(axis=-1))[1] == 3
            assert pixels.shape[1] == width
            assert (pixels[-1, 0].mean() < 100) == dark
            assert browser.value("document.documentElement.scrollWidth") <= width
            assert len(drawn(browser, pixels)) == 2 and min(drawn(browser, pixels)) > 200
            assert browser.requests == [page.as_uri()]
            assert browser.complaints == []
        empty = tmp_path / "empty.html"
        write_page(empty, "t", [Section("", [Picture(Figure(figsize=(2, 2)), "nothing")])])
        assert drawn(browser, browser.open(empty, 1280)) == [0]
    finally:
        browser.close()
