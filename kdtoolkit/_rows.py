"""Lists the published rows that run with one command: file, row, published figures."""

from collections.abc import Sequence
from pathlib import Path

from kdtoolkit import _errors, flagfiles
from kdtoolkit._tables import aligned


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
    cells = [("flag file", "recipe", "row, and what is published of it")]
    for row in rows:
        published = f"{row['row']}\n{row['published']}"
        cells.append((Path(row["path"]).name, row["recipe"], published))
    yield aligned(cells, left=3)
    yield ""
    yield f"in {Path(rows[0]['path']).parent}; run one with"
    yield "  python -m kdtoolkit.recipes.RECIPE --flagfile=FILE [--data_dir=...] [--smoke]"
