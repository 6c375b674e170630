"""One HTML file of sections with tables and pictures, which opens from disk without a network."""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
import markupsafe
from matplotlib.figure import Figure

from kdtoolkit import files
from kdtoolkit._types import PathLike
from kdtoolkit.report.svg import inline

_NUMBER = re.compile(r"-|[+-]?[\d,.]+(e[+-]?\d+)?( ?(%|ms|[kM]?B))?( ± [\d.]+)?")


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        rows: cells of each row, as many in all of them; the first row is the head. Columns of
            numbers alone are set to the right.
    """

    rows: Sequence[Sequence[str]]

    @classmethod
    def of(cls, rows: Sequence[Mapping], columns: Mapping[str, tuple[str, str]]) -> "Table":
        """Returns a table of dicts.

        Args:
            rows: a value that is missing or None shows as -.
            columns: key in the rows -> (heading, format such as `".2%"`).
        """
        return cls(
            [
                [heading for heading, _ in columns.values()],
                *(
                    [
                        format(row[key], spec) if row.get(key) is not None else "-"
                        for key, (_, spec) in columns.items()
                    ]
                    for row in rows
                ),
            ]
        )

    @property
    def numeric(self) -> list[bool]:
        """Of each column, whether all its cells below the head are numbers."""
        _, *body = self.rows
        cells = list(zip(*body, strict=True)) or [()] * len(self.rows[0])
        return [bool(own) and all(map(_NUMBER.fullmatch, own)) for own in cells]


@dataclass(frozen=True)
class Picture:
    """A figure of Matplotlib, and the sentence below it.

    Attributes:
        figure: is drawn as SVG, in the page's own colours.
        caption: what it shows; browsers read it aloud in its place.
    """

    figure: Figure
    caption: str


@dataclass(frozen=True)
class Code:
    """Lines to copy.

    Attributes:
        text: of them.
        caption: what they do.
    """

    text: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of a page.

    Attributes:
        title: its heading; none if it is empty.
        parts: tables, pictures, code and paragraphs (text), in their order; pictures that follow
            one another lie side by side where there is room.
    """

    title: str
    parts: Sequence[Table | Picture | Code | str]


def write_page(
    path: PathLike, title: str, sections: Sequence[Section], facts: Mapping[str, str] | None = None
) -> None:
    """Writes one HTML file, whole or not at all: style, and pictures as SVG, are in it.

    It follows the reader's choice of light or dark, and prints. The same arguments make the same
    bytes.

    Args:
        path: of the file.
        title: of the page.
        sections: in their order.
        facts: name -> text, shown below the title: command, machine, versions.
    """
    shown = [
        {"title": section.title, "groups": _groups(f"section{number}", section.parts)}
        for number, section in enumerate(sections)
    ]
    text = _template().render(title=title, facts=facts or {}, sections=shown)
    files.write_atomically(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))


def _groups(name, parts):
    """Parts as the template takes them: dicts of a `kind`, pictures in a row in one of them."""
    groups: list[dict] = []
    for number, part in enumerate(parts):
        if isinstance(part, Picture):
            drawn = {
                # Matplotlib escapes what is text in it.
                "svg": markupsafe.Markup(inline(part.figure, f"{name}-{number}")),
                "caption": part.caption,
            }
            if groups and groups[-1]["kind"] == "pictures":
                groups[-1]["pictures"].append(drawn)
            else:
                groups.append({"kind": "pictures", "pictures": [drawn]})
        elif isinstance(part, Table):
            groups.append({"kind": "table", "rows": part.rows, "numeric": part.numeric})
        elif isinstance(part, Code):
            groups.append({"kind": "code", "text": part.text, "caption": part.caption})
        else:
            groups.append({"kind": "text", "text": part})
    return groups


@functools.cache
def _template():
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("page.html")
