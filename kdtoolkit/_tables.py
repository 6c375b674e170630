"""Tables of text for people, aligned, and no wider than the terminal that shows them."""

import shutil
import sys
from collections.abc import Sequence

from rich.box import Box
from rich.console import Console
from rich.table import Table

_UNLIMITED = 10_000  # characters of a line
_RULE = Box("    \n    \n -- \n    \n    \n    \n    \n    \n", ascii=True)


def aligned(cells: Sequence[Sequence[str]], left: int = 0, rule: bool = True) -> str:
    """Returns rows of text as lines, in columns as wide as their widest cell.

    On a terminal, cells that make a line too long for it are folded. In a file or a pipe, which
    programs read, lines are as long as they are.

    Args:
        cells: rows, the first of them the headings.
        left: so many columns, from the first one, are flush left; the others are flush right.
        rule: whether there is a line below the headings.
    """
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else _UNLIMITED
    head, *rows = cells
    table = Table(
        box=_RULE if rule else None,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1 if rule else 2, 0, 0),
    )
    for place, heading in enumerate(head):
        table.add_column(heading, justify="left" if place < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    # Nothing is taken from the environment, and the text of a cell is what is shown.
    console = Console(
        width=width,
        color_system=None,
        force_terminal=False,
        force_jupyter=False,
        legacy_windows=False,
        markup=False,
        emoji=False,
        highlight=False,
    )
    with console.capture() as capture:
        console.print(table)
    return "\n".join(line.rstrip() for line in capture.get().splitlines())
