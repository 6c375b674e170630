"""Lists the published rows that run with one command: file, row, published figures."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from kdtoolkit import _errors, flagfiles


def main(argv: Sequence[str]) -> int:
    """Runs `kdtoolkit recipes` and returns the exit status."""
    if argv and argv[0] not in ("--help", "-h"):
        return _errors.fail("recipes", f"takes no arguments. Received: {argv[0]}", status=2)
    try:
        rows = flagfiles.rows()
    except FileNotFoundError as error:
        return _errors.fail("recipes", error, status=1)
    print("\n".join(_lines(rows)))
    return 0


def _lines(rows):
    names = [Path(row["path"]).name for row in rows]
    width = max(map(len, names))
    recipe = max(len(row["recipe"]) for row in rows)
    yield f"{'flag file'.ljust(width)}  {'recipe'.ljust(recipe)}  row, and what is published of it"
    yield "-" * 120
    for name, row in zip(names, rows, strict=True):
        start = f"{name.ljust(width)}  {row['recipe'].ljust(recipe)}  "
        yield start + row["row"]
        yield from textwrap.wrap(
            row["published"],
            120,
            initial_indent=" " * len(start),
            subsequent_indent=" " * len(start),
        )
    yield ""
    yield f"in {Path(rows[0]['path']).parent}; run one with"
    yield "  python -m kdtoolkit.recipes.RECIPE --flagfile=FILE [--data_dir=...] [--smoke]"
