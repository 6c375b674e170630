"""docs/methods.md shows the registry as it is."""

from pathlib import Path

from kdtoolkit.methods import table

PAGE = Path(__file__).parents[2] / "docs" / "methods.md"


def test_the_table_of_the_page_is_that_of_the_registry():
    """If it is not, put there what `table.markdown()` returns."""
    assert table.markdown() in PAGE.read_text()
