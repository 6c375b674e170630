"""A picture of each analysis: its numbers in, a matplotlib `Figure` out, nothing computed."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rcParamsDefault
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.rcsetup import cycler

from kdtoolkit.analysis.numbers import Agreement, Calibration, Noisy, Projection

_PANEL = 4.0  # inches
_FAINT = 0.3
_COLUMNS = 4  # panels side by side
_LINES = cycler(linestyle=["-", ":", "-."]) * rcParamsDefault["axes.prop_cycle"]
_MOST_INSIDE = 12  # lines whose legend leaves some of them to be seen


def energy(confidences: Mapping[str, np.ndarray]) -> Figure:
    """Draws mean scores by rank, both axes logarithmic.

    Args:
        confidences: name -> of `sorted_confidences`, `(classes,)`.
    """
    figure, (axes,) = _panels(1)
    for name, scores in confidences.items():
        axes.plot(np.arange(1, len(scores) + 1), scores, label=name)
    axes.set(xscale="log", yscale="log", xlabel="rank of the score", ylabel="mean score")
    _finish(axes)
    return figure


def generations(
    measured: Mapping[str, Sequence[float]], expected: Mapping[str, Sequence[float]]
) -> Figure:
    """Draws how sure the generations are of the true class, and what their optimum is.

    Args:
        measured: name -> mean score of the true class of each generation.
        expected: likewise, of `expected_true_scores`; drawn dashed, in the colour of its name.
    """
    figure, (axes,) = _panels(1)
    for name, scores in measured.items():
        (line,) = axes.plot(scores, marker="o", label=name)
        if name in expected:
            axes.plot(expected[name], "--", color=line.get_color(), label=f"{name}, closed form")
    most = max(map(len, measured.values()))
    axes.set(xlabel="generation", ylabel="mean score of the true class", xticks=range(most))
    _finish(axes)
    return figure


def second_choices(counts: Mapping[str, np.ndarray], groups: np.ndarray | None = None) -> Figure:
    """Draws second choices as shares of each row, classes of a group side by side.

    Args:
        counts: name -> of `count_second_choices`, `(classes, classes)`.
        groups: the group of each class, `(classes,)`, each framed; None for classes as they are.
    """
    figure, panels = _panels(len(counts))
    order = None if groups is None else np.argsort(groups, kind="stable")
    mappable: ScalarMappable | None = None
    for axes, (name, matrix) in zip(panels, counts.items(), strict=True):
        shares = np.asarray(matrix, float) / np.maximum(np.sum(matrix, axis=1, keepdims=True), 1)
        shares = shares if order is None else shares[np.ix_(order, order)]
        mappable = axes.imshow(shares, cmap="magma_r", norm=PowerNorm(0.5, 0, 1))
        axes.set(xlabel="second choice", ylabel="true class", xticks=[], yticks=[])
        axes.set_title(name, parse_math=False)
        if groups is not None and order is not None:
            _frame_groups(axes, np.asarray(groups)[order])
    if mappable is not None:
        part = min(len(panels), _COLUMNS) / len(panels)  # about as high as a panel, at the top
        place = {"shrink": part, "anchor": (0, 1)}
        figure.colorbar(mappable, ax=panels, label="share of the row", **place)
    return figure


def flatness(noisy: Mapping[str, Sequence[Noisy]], normalized: bool = False) -> Figure:
    """Draws accuracy and loss against the strength of noise: means of the draws, and their range.

    Args:
        noisy: name -> of `under_noise`.
        normalized: as it was there.
    """
    figure, panels = _panels(2)
    for name, rows in noisy.items():
        sigmas = [row.sigma for row in rows]
        for axes, draws in (
            (panels[0], [100 * np.array(row.accuracies) for row in rows]),
            (panels[1], [np.array(row.losses, float) for row in rows]),  # None: not finite
        ):
            (line,) = axes.plot(sigmas, [each.mean() for each in draws], marker=".", label=name)
            low, high = zip(*((each.min(), each.max()) for each in draws), strict=True)
            axes.fill_between(sigmas, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    for axes, label in zip(panels, ("accuracy (%)", "loss (nats)"), strict=True):
        strength = "share of each filter's norm" if normalized else "sigma of the weights' noise"
        axes.set(xlabel=strength, ylabel=label)
        axes.locator_params(axis="x", nbins=5)
    _finish(*panels)
    return figure


def gradients(found: Mapping[str, Mapping[str, float]]) -> Figure:
    """Draws the mean absolute gradient of each convolution; one of zero is not drawn.

    Args:
        found: name of a loss -> convolution -> number, as `distillation_gradients` has it.
    """
    names = list(next(iter(found.values())))
    figure, (axes,) = _panels(1, width=max(1.6 * _PANEL, 0.2 * len(names)), height=1.2 * _PANEL)
    for (loss, values), marker in zip(found.items(), "o^sDv" * len(found), strict=False):
        points = [(place, values[name]) for place, name in enumerate(names) if values[name] > 0]
        axes.plot(*zip(*points, strict=True), marker, label=loss, markersize=4, alpha=0.8)
    axes.set(yscale="log", ylabel="mean absolute gradient")
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
    _finish(axes)
    return figure


def exit_features(
    projections: Mapping[str, Projection], labels: np.ndarray, ratios: Mapping[str, float]
) -> Figure:
    """Draws the features of each exit in two dimensions, a colour for each class.

    Args:
        projections: name of an exit -> of `principal_components`.
        labels: class indices `(n,)` of all their points.
        ratios: name of an exit -> of `scatter_ratio`.
    """
    figure, panels = _panels(len(projections), width=0.75 * _PANEL)
    _, places = np.unique(labels, return_inverse=True)
    for axes, (name, projection) in zip(panels, projections.items(), strict=True):
        points = np.asarray(projection.points)
        for place in np.unique(places):
            axes.plot(*points[places == place].T, "o", markersize=2, markeredgewidth=0)
        share = sum(projection.variance)
        axes.set(title=f"{name}: within / between {ratios[name]:.2f}", xticks=[], yticks=[])
        axes.set_xlabel(f"two components, {share:.0%} of the variance")
    return figure


def transfer(accuracies: Mapping[str, float]) -> Figure:
    """Draws the accuracy of the linear classifier on each network's features.

    Args:
        accuracies: name -> of `linear_probe`, a fraction.
    """
    return _rows({"test accuracy of a linear probe (%)": _in_percent(accuracies)})


def reliability(calibrations: Mapping[str, Calibration]) -> Figure:
    """Draws accuracy against confidence, before and after the temperature.

    Args:
        calibrations: name -> of `temperature_scaling`.
    """
    figure, panels = _panels(2)
    for axes, when in zip(panels, ("before", "after"), strict=True):
        axes.plot([0, 1], [0, 1], "-", color="0.6", linewidth=1)
        for name, calibration in calibrations.items():
            found = getattr(calibration, when)
            kept = np.asarray(found.counts) > 0
            points = (np.asarray(x, float)[kept] for x in (found.confidences, found.accuracies))
            axes.plot(*points, marker=".", label=f"{name}, error {100 * found.error:.1f}%")
        axes.set(title=f"{when} its temperature", xlabel="confidence", ylabel="accuracy")
    _finish(*panels)
    return figure


def agreement(found: Mapping[str, Agreement]) -> Figure:
    """Draws how often pairs of a teacher and a student decide alike, and how far apart they are.

    Args:
        found: name of a pair -> of `teacher_agreement`.
    """
    return _rows(
        {
            "same decisions (%)": _in_percent({name: each.share for name, each in found.items()}),
            "mean KL (nats)": {name: each.divergence for name, each in found.items()},
        }
    )


def _in_percent(fractions):
    return {name: 100 * value for name, value in fractions.items()}


def _rows(panels):
    """A panel for each label of an axis -> name of a row -> value."""
    count = len(next(iter(panels.values())))
    figure, axes = _panels(len(panels), height=1 + 0.25 * count)
    for one, (label, values) in zip(axes, panels.items(), strict=True):
        one.plot(list(values.values()), range(count), "o")
        one.set_xlabel(label)
        names = list(values) if one is axes[0] else []
        one.set_yticks(range(count), names, fontsize=8, parse_math=False)
        one.invert_yaxis()
        one.margins(0.15)
        one.grid(alpha=_FAINT)
    return figure


def _panels(count, width=_PANEL, height=_PANEL):
    """A figure, and its panels, of which so many lie side by side."""
    columns = min(count, _COLUMNS)
    rows = -(-count // columns)
    figure = Figure(figsize=(width * columns + 1, height * rows), layout="constrained")
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in panels:
        axes.set_prop_cycle(_LINES)
    for unused in panels[count:]:
        unused.remove()
    return figure, panels[:count]


def _frame_groups(axes: Axes, groups):
    edges = np.flatnonzero(np.diff(groups)) + 1
    for start, end in zip([0, *edges], [*edges, len(groups)], strict=True):
        square = [start - 0.5, end - 0.5, end - 0.5, start - 0.5, start - 0.5]
        across = [start - 0.5, start - 0.5, end - 0.5, end - 0.5, start - 0.5]
        axes.plot(square, across, "-", color="#0b5cad", linewidth=0.6)


def _finish(*panels):
    for axes in panels:
        axes.grid(alpha=_FAINT)
        beside = {"loc": "upper left", "bbox_to_anchor": (1, 1)}
        legend = axes.legend(fontsize=7, **(beside if len(axes.lines) > _MOST_INSIDE else {}))
        for text in legend.get_texts():  # names of files and directories, which may hold a $
            text.set_parse_math(False)
