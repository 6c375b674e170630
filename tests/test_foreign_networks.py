"""docs/foreign-networks.md says what is so: a few of its cells by default, all of them in CI."""

import os

import pytest

from tests import foreign_networks
from tests.foreign_networks import NETWORKS, PAGE, WORKS

# All ten take minutes: without KDTOOLKIT_TEST=all, one stands for the others.
SHOWN = NETWORKS if os.environ.get("KDTOOLKIT_TEST") == "all" else ("sequential",)


@pytest.fixture(scope="module")
def rows():
    return foreign_networks.rows_of(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", SHOWN)
def test_cells_are_what_the_page_says(name, rows):
    assert foreign_networks.row(name) == rows[name]


def test_the_page_is_what_is_written_of_its_cells(rows):
    assert foreign_networks.page(rows) == PAGE.read_text(encoding="utf-8")
    lines = {cell for row in rows.values() for cell in row.values()} - {WORKS}
    assert all(line.startswith("Argument `") for line in lines), lines
