"""Plots as files. Matplotlib needs no display."""

import itertools
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kdtoolkit import files
from kdtoolkit._types import PathLike
from kdtoolkit.analysis import report


def plot_accuracy_against_cost(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: PathLike,
    *,
    marked: Mapping[str, tuple[float, float]] | None = None,
    cost_label: str = "cost",
) -> None:
    """Draws accuracy-cost curves.

    Args:
        curves: label -> sequence of (cost, accuracy), accuracies as fractions.
        path: PNG file, written whole or not at all.
        marked: label -> (cost, accuracy) of single points, each in a colour of its own.
        cost_label: of the horizontal axis.
    """
    figure = Figure(figsize=(6, 4), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for label, points in curves.items():
        costs, accuracies = zip(*points, strict=True)
        axes.plot(costs, [100 * accuracy for accuracy in accuracies], ".-", label=label)
    for label, (cost, accuracy) in (marked or {}).items():
        axes.plot(cost, 100 * accuracy, "o", markersize=9, fillstyle="none", label=label)
    axes.set(xlabel=cost_label, ylabel="accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend()
    files.write_atomically(path, lambda scratch: figure.savefig(scratch, format="png"))


def plot_drops(
    drops: Mapping[str, Mapping[str, float]], path: PathLike, *, label: str = "accuracy lost"
) -> None:
    """Draws what changes to parts of a network cost: a row for each part, a point for each change.

    Args:
        drops: name of a part -> name of a change -> accuracy that it costs, a fraction.
        path: SVG file, written whole or not at all.
        label: of the horizontal axis, in points.
    """
    figure = Figure(figsize=(7, 1.2 + 0.25 * len(drops)), layout="constrained")
    axes = figure.add_subplot()
    changes = dict.fromkeys(change for own in drops.values() for change in own)
    for change, marker in zip(changes, itertools.cycle("o^sDvP"), strict=False):
        points = [(100 * o[change], y) for y, o in enumerate(drops.values()) if change in o]
        axes.plot(*zip(*points, strict=True), marker, label=change, alpha=0.7)
    axes.set_yticks(range(len(drops)), list(drops), fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"{label} (points)")
    axes.grid(alpha=0.3)
    axes.legend()
    drawn = report.svg(figure, "drops")
    files.write_atomically(path, lambda scratch: scratch.write_text(drawn, encoding="utf-8"))
