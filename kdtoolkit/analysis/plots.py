"""Plots as PNG files. Matplotlib stays in this module, and needs no display."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from kdtoolkit import files
from kdtoolkit._types import PathLike


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
