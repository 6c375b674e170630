"""The report as a reader's browser has it."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from kdtoolkit.analysis import write_report

ROWS = [
    {"variant": "original", "test_accuracy": 0.9, "bytes": 1000, "ms": 2.0},
    {"variant": "80% <sparse>", "test_accuracy": 0.875, "bytes": 250, "ms": None},
]
COLUMNS = {"variant": ("variant", ""), "test_accuracy": ("accuracy", ".1%"), "bytes": ("B", ",d")}


@pytest.fixture
def report(tmp_path):
    path = tmp_path / "report.html"
    facts = {"command": "compress --model=a&b"}
    write_report(path, "A & B", facts, ROWS, COLUMNS, {"bytes": "bytes", "ms": "milliseconds"})
    return path


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.open, self.svgs, self.links = [], None, 0, []

    def handle_starttag(self, tag, attributes):
        self.open = tag
        self.svgs += tag == "svg"
        self.links += [v for k, v in attributes if k in ("src", "href", "xlink:href")]

    def handle_data(self, text):
        if self.open in ("td", "th") and text.strip():
            self.cells.append(text)


def test_table_is_the_rows(report):
    reader = Reader()
    reader.feed(report.read_text())
    headings, cells = ["variant", "accuracy", "B"], ["original", "90.0%", "1,000"]
    assert reader.cells == [*headings, *cells, "80% <sparse>", "87.5%", "250"]
    assert reader.svgs == 2
    assert "<h1>A &amp; B</h1>" in report.read_text()
    assert "compress --model=a&amp;b" in report.read_text()


def test_only_some_points_are_named(tmp_path):
    rows = [{**row, "told": row["variant"] == "original"} for row in ROWS]
    counts = []
    for named in (None, "told"):
        path = tmp_path / f"{named}.html"
        write_report(path, "", {}, rows, COLUMNS, {"bytes": "bytes"}, named=named)
        counts.append([path.read_text().count(text) for text in ("original", "80% &lt;sparse")])
    assert counts[0] == [2, 2]  # in the table, and in the plot
    assert counts[1] == [2, 1]


def test_nothing_comes_from_elsewhere(report):
    reader = Reader()
    reader.feed(report.read_text())
    assert all(link.startswith("#") for link in reader.links)
    assert not re.search(r"url\((?!#)|@import", report.read_text())


CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_plots_are_drawn_in_a_browser(report, tmp_path):
    """Three points in the accent colour: two in the first plot, one in the second."""
    picture = tmp_path / "page.png"
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1300,900"]
    command += [f"--screenshot={picture}", f"--user-data-dir={tmp_path / 'user'}"]
    done = subprocess.run([*command, report.as_uri()], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
    blue = (np.abs(pixels - (0x0B, 0x5C, 0xAD)) < 12).all(axis=-1)
    assert ndimage.label(blue)[1] == 3
