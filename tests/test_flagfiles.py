"""The flag files of the published rows: what they say, and that every flag is one."""

import importlib
import json
import math
import os
import pathlib
import shlex

import pytest

from kdtoolkit import cli, flagfiles
from kdtoolkit.recipes._command import Flags

ROWS = flagfiles.rows()


def smoke_flags(row):
    """The recipe, and every flag of the row's smoke run, as text."""
    recipe = importlib.import_module(f"kdtoolkit.recipes.{row['recipe']}").RECIPE
    flags = Flags()
    recipe.define(flags)
    flags([recipe.name, f"--flagfile={row['path']}", "--smoke", "--output_dir=run"])
    recipe.check(flags)
    return recipe, flags.effective()


def name(row):
    return row["path"].rpartition("/")[2]


def parts_that_run(row):
    """The flags that are no numbers: rows that differ in these alone go through the same code."""
    text = {flag: value for flag, value in smoke_flags(row)[1].items() if not _is_number(value)}
    return tuple(sorted(text.items()))


def _is_number(text):
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


# One of each recipe, of networks that are soon traced, goes to its files. What others train, with
# KDTOOLKIT_TEST=all, is not exported: files are those of tests/recipes and tests/export.
SLOWEST = "byot-cifar100-wrn-20-8.flags"  # with all alone
WITH_FILES = {
    "tolerant-figure2-resnet92.flags",
    "benchmark-wrn-40-2-wrn-16-2-standardize.flags",
    SLOWEST,
}
# What differs among the first of these rows are the networks: one student is taught by all methods
# at once. Those of the second have the same networks.
TOGETHER, SAME = "Benchmark of distillation", "Benchmark of logit standardisation"
ALL = os.environ.get("KDTOOLKIT_TEST") == "all"
SMOKE_RUNS = [row for row in ROWS if name(row) in WITH_FILES and (ALL or name(row) != SLOWEST)]
if ALL:
    rows = [row for row in ROWS if not row["row"].startswith(SAME)]
    others = {parts_that_run(row): row for row in [*rows, *SMOKE_RUNS]}
    SMOKE_RUNS += [row for row in others.values() if row not in SMOKE_RUNS]


@pytest.mark.parametrize("row", ROWS, ids=name)
def test_flags_are_known_and_the_command_is_right(row):
    recipe = importlib.import_module(f"kdtoolkit.recipes.{row['recipe']}").RECIPE
    flags = Flags()
    recipe.define(flags)
    rest = flags([recipe.name, f"--flagfile={row['path']}"])[1:]
    assert rest == []
    assert shlex.split(row["command"]) == [
        *("python", "-m", f"kdtoolkit.recipes.{row['recipe']}", f"--flagfile=recipes/{name(row)}")
    ]
    assert set(row) - {"path", "recipe"} <= set(flagfiles.KEYS)


def test_exits_of_the_papers_rows_are_as_wide_as_the_papers():
    rows = [row for row in ROWS if row["recipe"] == "self_distillation"]
    assert len(rows) == 13
    for row in rows:
        assert "--head_width=128\n" in pathlib.Path(row["path"]).read_text()


@pytest.mark.parametrize(
    ("table", "count"),
    [
        ("Tolerant teacher, Table 1", 6),
        ("Tolerant teacher, Figure 2", 7),
        ("Tolerant teacher, Table 2", 2),
        ("Born-again networks", 4),
        ("Be your own teacher, CIFAR-100", 10),
        ("Be your own teacher, ILSVRC2012", 3),
        ("Be your own teacher, comparison", 4),
        ("Benchmark of distillation, CIFAR-100", 10),
        ("Benchmark of logit standardisation", 8),
        ("Preparing lessons", 4),
    ],
)
def test_rows_of_the_papers(table, count):
    assert sum(row["row"].startswith(table) for row in ROWS) == count


@pytest.mark.parametrize("row", SMOKE_RUNS, ids=name)
def test_rows_run(row, tmp_path, monkeypatch, capsys):
    # Tests share a process, in which operations stay as they are.
    monkeypatch.setattr("kdtoolkit.recipes._session.prepare_process", lambda flags: None)
    recipe, _ = smoke_flags(row)
    directory = tmp_path / "run-smoke"
    flags = [f"--flagfile={row['path']}", "--smoke", f"--output_dir={tmp_path / 'run'}"]
    together = row["row"].startswith(TOGETHER)
    if together:
        methods = parsed(row, recipe).methods
        flags.append(f"--methods={'+'.join(method for method in methods if method != 'plain')}")
    if name(row) not in WITH_FILES:
        flags.append("--export=none")
    assert recipe.main(flags) == 0, capsys.readouterr().err
    results = json.loads((directory / "results.json").read_text())
    networks = {path.parent for path in directory.rglob("network.keras")}
    assert len(networks) == (2 if together else _trainings(row, recipe))
    if name(row) not in WITH_FILES:
        return
    for exported in results["exports"]:
        assert (directory / exported["path"]).exists()
    assert {row["format"] for row in results["exports"]} >= {"saved_model", "litert"}


def parsed(row, recipe):
    flags = Flags()
    recipe.define(flags)
    flags([recipe.name, f"--flagfile={row['path']}"])
    return flags


def _trainings(row, recipe):
    """How many networks a smoke run trains, from the row's own flags."""
    flags = parsed(row, recipe)
    if recipe.name == "born_again":
        return 1 + min(flags.generations, 1)
    if recipe.name == "self_distillation":
        return 1 + flags.baseline + flags.deep_supervision
    return 1 + len(flags.methods)


def test_command_lists_the_rows(capsys):
    assert cli.main(["recipes"]) == 0
    listed = capsys.readouterr().out
    for row in ROWS:
        line = next(line for line in listed.splitlines() if name(row) in line)
        assert line.split(maxsplit=2)[1:] == [row["recipe"], row["row"]]
    assert "accuracy % baseline 77.09; exits 1/4-4/4 67.85" in listed
    assert cli.main(["recipes", "all"]) == 2
    assert "recipes: takes no arguments" in capsys.readouterr().err
