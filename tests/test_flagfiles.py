"""The flag files of the published rows: what they say, and that every flag is one."""

import importlib
import shlex

import pytest

from kdtoolkit import flagfiles
from kdtoolkit.recipes._command import Flags

ROWS = flagfiles.rows()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["path"].rpartition("/")[2])
def test_flags_are_known_and_the_command_is_right(row):
    recipe = importlib.import_module(f"kdtoolkit.recipes.{row['recipe']}").RECIPE
    flags = Flags()
    recipe.define(flags)
    rest = flags([recipe.name, f"--flagfile={row['path']}"])[1:]
    assert rest == []
    name = row["path"].rpartition("/")[2]
    assert shlex.split(row["command"]) == [
        *("python", "-m", f"kdtoolkit.recipes.{row['recipe']}", f"--flagfile=recipes/{name}")
    ]
    assert set(row) - {"path", "recipe"} <= set(flagfiles.KEYS)


@pytest.mark.parametrize(
    ("table", "count"),
    [
        ("Tolerant teacher, Table 1", 6),
        ("Tolerant teacher, Figure 2", 7),
        ("Tolerant teacher, Table 2", 1),
        ("Born-again networks", 4),
        ("Be your own teacher, CIFAR-100", 10),
        ("Be your own teacher, ILSVRC2012", 3),
        ("Be your own teacher, comparison", 4),
        ("Benchmark of KD, FitNet and AT", 6),
        ("Preparing lessons", 4),
    ],
)
def test_rows_of_the_papers(table, count):
    assert sum(row["row"].startswith(table) for row in ROWS) == count
