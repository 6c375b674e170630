"""Figures of Matplotlib as SVG, the same text for the same figure."""

import io
import re

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

ACCENT, ALARM = "#0b5cad", "#c0262d"
"""Colours of what a picture is about, and of what failed."""

# What Matplotlib draws with by default, and ours, as the page's own colours, which follow the
# reader's choice of light or dark.
_THEME = {
    "#000000": "var(--ink)",
    "#ffffff": "var(--paper)",
    "#b0b0b0": "var(--rule)",
    "#cccccc": "var(--rule)",
    ACCENT: "var(--accent)",
    ALARM: "var(--alarm)",
}


def svg(figure: Figure, name: str) -> str:
    """Returns a figure as an SVG element, for a file of its own.

    Args:
        figure: with a white ground.
        name: from which the identifiers in it are made.
    """
    stream = io.StringIO()
    # The page's own fonts, and ids that are the same in every run.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        # What `savefig` does, but for a first drawing that nothing is kept of.
        FigureCanvasSVG(figure).print_svg(stream, metadata={"Date": None})
    drawn = stream.getvalue()
    return drawn[drawn.index("<svg") :]


def inline(figure: Figure, name: str) -> str:
    """Returns a figure as an SVG element of a page that defines the colours of `page.html`.

    Args:
        figure: whose colours are Matplotlib's own, `ACCENT`, `ALARM`, and others that are seen on
            light and dark.
        name: differs from that of every other figure of the page.
    """
    drawn = svg(figure, name)
    for color, variable in _THEME.items():
        drawn = drawn.replace(color, variable)
    # Ids that nothing refers to are the same in all figures.
    return re.sub(r' id="([^"]*)"', lambda m: m[0] if f"#{m[1]}" in drawn else "", drawn)
