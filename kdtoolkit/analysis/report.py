"""One HTML file with a table and plots, which opens from disk without a network."""

import html
import io
from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from kdtoolkit import files
from kdtoolkit._types import PathLike

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem; padding: 0 1rem;
       color: #1b1b1b; background: #fff; }
h1 { font-size: 1.5rem; }
table { border-collapse: collapse; margin: 1.5rem 0; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
th { border-bottom: 2px solid #666; }
dt { color: #666; float: left; clear: left; width: 9rem; }
dd { margin-left: 9rem; overflow-wrap: anywhere; }
figure { display: inline-block; margin: 0; max-width: 100%; }
svg { max-width: 100%; height: auto; }
"""


def write_report(
    path: PathLike,
    title: str,
    facts: Mapping[str, str],
    rows: Sequence[Mapping],
    columns: Mapping[str, tuple[str, str]],
    charts: Mapping[str, str],
    *,
    label: str = "variant",
    height: str = "test_accuracy",
    named: str | None = None,
) -> None:
    """Writes rows as a table, and a plot of one figure against each of some others.

    Everything is in the one file: style, and plots as SVG.

    Args:
        path: the HTML file, written whole or not at all.
        title: of the page.
        facts: name -> text, shown above the table: command, machine, versions.
        rows: dicts; a value that is missing or None shows as -, and is not plotted. One whose
            `failure` is not None is plotted as a cross.
        columns: key in the rows -> (heading, format such as `".2%"`).
        charts: key of a plot's horizontal axis -> its label.
        label: key of what names a row.
        height: key of the plots' vertical axis, a fraction, shown in per cent.
        named: key that says of a row whether the plots fill its point and name it; None for all.
    """
    parts = [
        "<dl>",
        *(f"<dt>{html.escape(k)}</dt><dd>{html.escape(str(v))}</dd>" for k, v in facts.items()),
        "</dl>",
        _table(rows, columns),
        *(
            f"<figure>{_chart(rows, x, name, label, height, named)}</figure>"
            for x, name in charts.items()
        ),
    ]
    write_page(path, title, parts)


def write_page(path: PathLike, title: str, parts: Sequence[str]) -> None:
    """Writes one HTML file, whole or not at all, that needs no other.

    Args:
        path: of the file.
        title: of the page, as text.
        parts: of its body after the heading, as HTML.
    """
    shown = html.escape(title)
    lines = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        f"<title>{shown}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{shown}</h1>",
        *parts,
        "</body></html>",
    ]
    files.write_atomically(
        path, lambda scratch: scratch.write_text("\n".join(lines) + "\n", encoding="utf-8")
    )


def _table(rows, columns):
    cells = [[heading for heading, _ in columns.values()]]
    for row in rows:
        cells.append(
            [
                format(row[key], spec) if row.get(key) is not None else "-"
                for key, (_, spec) in columns.items()
            ]
        )
    return table(cells)


def table(cells: Sequence[Sequence[str]]) -> str:
    """Returns rows of text as an HTML table, whose first row is its head."""

    def line(row, tag):
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row) + "</tr>"

    head, *body = cells
    lines = [f"<table><thead>{line(head, 'th')}</thead><tbody>", *(line(r, "td") for r in body)]
    return "\n".join([*lines, "</tbody></table>"])


def _chart(rows, key, name, label, height, named):
    points = [row for row in rows if row.get(key) is not None and row.get(height) is not None]
    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.add_subplot()
    for row in points:
        x, y = row[key], 100 * row[height]
        marker, color = ("x", "#c0262d") if row.get("failure") else ("o", "#0b5cad")
        told = named is None or row[named]
        axes.plot(x, y, marker, color=color, fillstyle="full" if told else "none")
        if told:
            axes.annotate(row[label], (x, y), (5, 4), textcoords="offset points", fontsize=8)
    axes.set(xlabel=name, ylabel=f"{height.replace('_', ' ')} (%)")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    return svg(figure, key)


def svg(figure: Figure, name: str) -> str:
    """Returns a figure as an SVG element, the same text for the same figure and name."""
    stream = io.StringIO()
    # The page's own fonts, and ids that are the same in every run.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    drawn = stream.getvalue()
    return drawn[drawn.index("<svg") :]
