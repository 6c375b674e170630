"""Makes the page of a finished run again, report.html, from what its directory holds."""

import importlib
from collections.abc import Sequence
from pathlib import Path

from kdtoolkit import _errors, files
from kdtoolkit._arguments import Parser


def main(argv: Sequence[str]) -> int:
    """Runs `kdtoolkit report DIRECTORY...` and returns the exit status."""
    parser = Parser(prog="kdtoolkit report", description=__doc__)
    parser.add_argument(
        "directories",
        nargs="+",
        type=Path,
        metavar="DIRECTORY",
        help="output directory of a recipe's finished run",
    )
    try:
        for directory in parser.parse_args(argv).directories:
            print(_write(directory))
    except ValueError as error:
        return _errors.fail("report", error, status=2)
    return 0


def _write(directory):
    from kdtoolkit.cli import recipe_summaries
    from kdtoolkit.recipes import _page

    try:
        name = files.read_record(directory / "results.json")["recipe"]
        if name not in recipe_summaries():
            raise ValueError(f"{name!r} is no recipe")
        return _page.write(importlib.import_module(f"kdtoolkit.recipes.{name}").RECIPE, directory)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"DIRECTORY must be the output directory of a finished recipe. Received: {directory} "
            f"({type(error).__name__}: {error})"
        ) from error
