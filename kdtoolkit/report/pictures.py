"""Pictures that several pages have, from figures alone. Matplotlib needs no display."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from kdtoolkit import files
from kdtoolkit._types import PathLike
from kdtoolkit.report.svg import ACCENT, ALARM, svg

DROPS = "accuracy lost"
_MOST_NAMED = 10  # lines of a chart that a legend tells apart: as many as there are colours
_OUTLIER = 30  # times the median, which is a line at the bottom then


def accuracy_against_cost(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    marked: Mapping[str, tuple[float, float]] | None = None,
    cost_label: str = "cost",
) -> Figure:
    """Returns accuracy-cost curves.

    Args:
        curves: label -> sequence of (cost, accuracy), accuracies as fractions.
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
    return figure


def plot_accuracy_against_cost(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    path: PathLike,
    *,
    marked: Mapping[str, tuple[float, float]] | None = None,
    cost_label: str = "cost",
) -> None:
    """Writes what `accuracy_against_cost` returns as a PNG file, whole or not at all."""
    figure = accuracy_against_cost(curves, marked, cost_label)
    files.write_atomically(path, lambda scratch: figure.savefig(scratch, format="png"))


def plot_drops(
    drops: Mapping[str, Mapping[str, float]], path: PathLike, *, label: str = DROPS
) -> None:
    """Writes what changes to parts of a network cost: a row for each part, a point for each change.

    Args:
        drops: name of a part -> name of a change -> accuracy that it costs, a fraction.
        path: SVG file, written whole or not at all.
        label: of the horizontal axis, in points.
    """
    drawn = svg(drops_by_part(drops, label), "drops")
    files.write_atomically(path, lambda scratch: scratch.write_text(drawn, encoding="utf-8"))


def drops_by_part(drops: Mapping[str, Mapping[str, float]], label: str = DROPS) -> Figure:
    """Returns the picture that `plot_drops` writes."""
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
    return figure


def front(
    rows: Sequence[Mapping],
    key: str,
    label: str,
    *,
    name: str = "variant",
    height: str = "test_accuracy",
    named: str | None = None,
) -> Figure:
    """Returns rows as points: accuracy against one of their figures.

    Args:
        rows: dicts. One without either figure is left out; one whose `failure` is not None is a
            cross.
        key: of the horizontal axis.
        label: of that axis.
        name: key of what a row is called.
        height: key of the vertical axis, a fraction, shown in per cent.
        named: key that says of a row whether its point is filled and named; None for all.
    """
    figure = Figure(figsize=(5.2, 3.6), layout="constrained")
    axes = figure.add_subplot()
    names: dict[tuple[float, float], list[str]] = {}
    for row in rows:
        if row.get(key) is None or row.get(height) is None:
            continue
        x, y = row[key], 100 * row[height]
        marker, color = ("x", ALARM) if row.get("failure") else ("o", ACCENT)
        told = named is None or row[named]
        axes.plot(x, y, marker, color=color, fillstyle="full" if told else "none")
        if told:
            names.setdefault((x, y), []).append(row[name])
    for number, point in enumerate(sorted(names)):  # above and below, or neighbours would meet
        offset = (5, 4 if number % 2 == 0 else -11)
        text = "; ".join(names[point])
        axes.annotate(text, point, offset, textcoords="offset points", fontsize=8)
    axes.set(xlabel=label, ylabel=f"{height.replace('_', ' ')} (%)")
    axes.margins(0.15)
    axes.grid(alpha=0.3)
    return figure


def over_epochs(
    curves: Sequence[tuple[str, Sequence[float | None]]],
    validated: Sequence[tuple[str, Sequence[float | None]]],
    label: str,
    colors: Mapping[str, str],
) -> Figure:
    """Returns a figure of some trainings over their epochs.

    Args:
        curves: group of a training, and its value after each epoch; one of None is not drawn.
        validated: likewise, of validation images; dashed. One epoch alone is a point, a cross here.
        label: of the vertical axis, which is logarithmic where one epoch would hide the others.
        colors: of the groups; the legend has its order.
    """
    figure = Figure(figsize=(4.6, 3.2))
    # A page has many of these: a layout takes as long again.
    axes = figure.add_axes((0.19, 0.15, 0.79, 0.82))
    for lines, line, point in ((curves, "-", "."), (validated, "--", "x")):
        for group, values in lines:
            known = [math.nan if value is None else value for value in values]
            marker = point if len(values) - list(values).count(None) == 1 else None
            epochs = range(1, len(values) + 1)
            axes.plot(epochs, known, line, marker=marker, color=colors[group])
    axes.set(xlabel="epoch", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    shown = [value for _, own in (*curves, *validated) for value in own if value is not None]
    if shown and min(shown) > 0 and max(shown) > _OUTLIER * statistics.median(shown):
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    there = {group for group, _ in (*curves, *validated)}
    if 1 < len(there) <= _MOST_NAMED:
        for group, color in colors.items():
            if group in there:
                axes.plot([], [], color=color, label=group)
        axes.legend(fontsize=7)
    return figure


def seeds(
    rows: Sequence[tuple[str, Sequence[float], tuple[float, float] | None]], label: str
) -> Figure:
    """Returns every seed as a point, their mean, and its interval, row by row.

    Args:
        rows: name, accuracy with each seed, ends of the mean's interval or None; fractions.
        label: of the horizontal axis, in per cent.
    """
    figure = Figure(figsize=(7, 0.9 + 0.3 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for place, (_, values, interval) in enumerate(rows):
        if interval is not None:
            axes.plot([100 * end for end in interval], [place] * 2, color=ALARM, linewidth=1)
        points = [100 * value for value in values]
        axes.plot(points, [place] * len(points), "o", color=ACCENT, alpha=0.6, gid=f"row{place}")
        axes.plot(statistics.mean(points), place, "|", color=ALARM, markersize=14, mew=2)
    axes.set_yticks(range(len(rows)), [name for name, *_ in rows], parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel(label)
    axes.grid(alpha=0.3, axis="x")
    return figure


def by_generation(curves: Mapping[str, Sequence[float]], label: str) -> Figure:
    """Returns figures of generations 0, 1, ...: a line for each name.

    Args:
        curves: name -> value of each generation.
        label: of the vertical axis.
    """
    figure = Figure(figsize=(4.6, 3.2), layout="constrained")
    axes = figure.add_subplot()
    for name, values in curves.items():
        axes.plot(range(len(values)), values, "o-", label=name)
    axes.set(xlabel="generation", ylabel=label)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    return figure
