"""When an exit is sure enough: temperatures and thresholds, from held-out predictions.

Everything here takes validation logits in NumPy; test images never choose a threshold.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import optimize

from kdtoolkit._checks import ArgumentError, Words
from kdtoolkit.edge import certify as certification
from kdtoolkit.edge.certify import Certificate
from kdtoolkit.edge.decisions import class_indices, confidences, decide, log_probabilities
from kdtoolkit.edge.package import OperatingPoint

NEVER = 2.0
"""A threshold that no confidence reaches."""

_ROUNDING = 1e-9  # Sums of the same costs and counts in another order.
_PATH = 100  # operating points that are tested: the more, the nearer to the limit
_MOST_CELLS = 250_000  # Combinations tried in all.
_MOST_EXITS = 1 + int(np.log2(_MOST_CELLS))  # always or never at all but the last


def calibrate(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the temperature that makes confidences honest (Guo et al., ICML 2017).

    It minimises the cross-entropy of `softmax(logits / temperature)`, within [0.05, 20].

    Args:
        logits: `(n, classes)`, of held-out images.
        labels: class indices `(n,)`.
    """
    logits = np.asarray(logits, np.float64)
    labels = class_indices(labels, *logits.shape)
    rows = np.arange(len(labels))

    def loss(log_temperature):
        return -log_probabilities(logits / np.exp(log_temperature))[rows, labels].mean()

    found = optimize.minimize_scalar(loss, bounds=np.log([0.05, 20]), method="bounded")
    return float(np.exp(found.x))


def operating_points(
    logits: Sequence[np.ndarray],
    labels: np.ndarray,
    temperatures: Sequence[float],
    costs: Sequence[float],
) -> list[OperatingPoint]:
    """Returns the best trades between accuracy and cost that thresholds can make.

    Each exit's threshold goes through quantiles of its confidences, the fewer the more exits there
    are, always and never among them; all combinations are counted exactly, and those remain that
    are more accurate than every cheaper one.

    Args:
        logits: one `(n, classes)` for each exit, shallow to deep, of held-out images; at most 18.
        labels: class indices `(n,)`.
        temperatures: of the exits.
        costs: of stopping at each exit, increasing.

    Returns:
        `OperatingPoint`s by increasing cost and accuracy.

    Raises:
        ValueError: there are too many exits, or their number differs between the arguments.
    """
    exits = len(logits)
    if not len(temperatures) == len(costs) == exits:
        received = Words(f"{exits}, {len(temperatures)} and {len(costs)}")
        accepted = "one entry for each exit, as `temperatures` and `costs` have"
        raise ArgumentError("logits", accepted, received, must="have")
    if exits > _MOST_EXITS:
        raise ArgumentError("logits", f"of at most {_MOST_EXITS} exits", Words(exits))
    log_f = [log_probabilities(z / t) for z, t in zip(logits, temperatures, strict=True)]
    labels = class_indices(labels, *log_f[-1].shape)
    correct = [f.argmax(-1) == labels for f in log_f]
    levels = int(_MOST_CELLS ** (1 / max(exits - 1, 1))) - 2  # besides always and never
    # Of few levels none is for the least and the largest confidence: nearly always, and never.
    ways = np.linspace(0, 1, levels) if levels > 2 else np.linspace(0, 1, levels + 2)[1:-1]
    choices, passed = [], []
    for f in log_f[:-1]:
        confidence = confidences(f)
        inner = np.quantile(confidence, ways)
        choices.append(np.unique([0.0, *inner, NEVER]))
        # How many thresholds the confidence reaches: an image stops at threshold i if i < passed.
        passed.append(np.searchsorted(choices[-1], confidence, side="right"))
    grid = tuple(len(choice) for choice in choices)
    right, cost = np.zeros(grid), np.zeros(grid)
    for k in range(exits):
        right += _stopped(passed, correct[k].astype(float), grid, k)
        cost += costs[k] * _stopped(passed, np.ones(len(labels)), grid, k)
    accuracy, cost = right.ravel() / len(labels), cost.ravel() / len(labels)
    points = []
    for index in frontier(accuracy, cost):
        place = np.unravel_index(index, grid)
        thresholds = tuple(float(c[i]) for c, i in zip(choices, place, strict=True))
        points.append(OperatingPoint(thresholds, float(accuracy[index]), float(cost[index])))
    return points


def frontier(
    accuracies: Sequence[float] | np.ndarray, costs: Sequence[float] | np.ndarray
) -> list[int]:
    """Returns the indices of what is more accurate than all that is cheaper, by increasing cost."""
    best, kept = -1.0, []
    for index in np.lexsort((-np.asarray(accuracies), np.asarray(costs))):
        if accuracies[index] > best:
            best = accuracies[index]
            kept.append(int(index))
    return kept


def path(
    logits: Sequence[np.ndarray],
    labels: np.ndarray,
    temperatures: Sequence[float],
    costs: Sequence[float],
    risk: str = "disagreement",
) -> list[OperatingPoint]:
    """Returns operating points to `certify`: from the cheapest to the whole network.

    They are the best trades between cost and the risk, and get riskier slowly; the dearest one
    never stops early.

    Args:
        logits, labels, temperatures, costs: as of `operating_points`.
        risk: of the `certify` that is to come.

    Returns:
        `OperatingPoint`s by increasing cost, with their accuracy on these images.
    """
    whole = logits[-1].argmax(-1)
    points = operating_points(
        logits, whole if risk == "disagreement" else labels, temperatures, costs
    )
    never = OperatingPoint((NEVER,) * (len(costs) - 1), 0.0, float(costs[-1]))
    found = []
    for point in [*sweep(points, _PATH), never]:
        accuracy, cost = evaluate(logits, labels, temperatures, costs, point.thresholds)
        found.append(OperatingPoint(point.thresholds, accuracy, cost))
    return found


def certify(
    logits: Sequence[np.ndarray],
    labels: np.ndarray | None,
    temperatures: Sequence[float],
    points: Sequence[OperatingPoint],
    *,
    risk: str = "disagreement",
    limit: float = 0.01,
    confidence: float = 0.9,
) -> Certificate:
    """Finds the cheapest operating point whose risk is within the limit on all images like these.

    Args:
        logits: one `(n, classes)` for each exit, of images that chose neither the points nor the
            temperatures.
        labels: class indices `(n,)`; None where the risk needs none.
        temperatures: of the exits.
        points: by increasing cost, such as of `path`.
        risk, limit, confidence: of `kdtoolkit.edge.certify.certify`.

    Raises:
        ArgumentError: an argument is not what is accepted.
    """
    decisions = [decide(logits, temperatures, point.thresholds)[0] for point in points]
    if labels is not None:
        labels = class_indices(labels, *np.shape(logits[-1]))
    return certification.certify(
        *(decisions, logits[-1].argmax(-1), labels), risk=risk, limit=limit, confidence=confidence
    )


def unbeaten(points: Sequence[OperatingPoint], others: Iterable[Any]) -> list[OperatingPoint]:
    """Returns the points to which no other choice is preferable.

    Args:
        points: `OperatingPoint`s.
        others: anything with a `validation_accuracy` and a `cost`. One of them beats a point if it
            is at least as accurate and not dearer.
    """
    return [
        point
        for point in points
        if not any(
            other.validation_accuracy >= point.validation_accuracy - _ROUNDING
            and other.cost <= point.cost + _ROUNDING
            for other in others
        )
    ]


def _stopped(passed, values, grid, k):
    """Sum of `values` over the images that stop at exit k, for every combination of thresholds.

    Before k an image goes on at threshold i if `passed <= i`; at k it stops if `passed > i`. It
    passes fewer than all: the last one is `NEVER`.
    """
    axes = min(k + 1, len(grid))
    size = grid[:axes]
    cells = np.ravel_multi_index(passed[:axes], size) if axes else np.zeros(len(values), int)
    counts = np.bincount(cells, values, minlength=int(np.prod(size))).reshape(size)
    for axis in range(axes):
        below = np.cumsum(counts, axis=axis)
        counts = below.take([-1], axis=axis) - below if axis == k else below
    return counts.reshape(counts.shape + (1,) * (len(grid) - axes))


def evaluate(
    logits: Sequence[np.ndarray],
    labels: np.ndarray,
    temperatures: Sequence[float],
    costs: Sequence[float],
    thresholds: Sequence[float],
) -> tuple[float, float]:
    """Returns `(accuracy, mean cost)` of early exit with the given thresholds.

    Args:
        logits: one `(n, classes)` for each exit.
        labels: class indices `(n,)`.
        temperatures, costs: of the exits.
        thresholds: of the exits but the last.
    """
    decisions, taken = decide(logits, temperatures, thresholds)
    labels = class_indices(labels, *np.shape(logits[-1]))
    return float(np.mean(decisions == labels)), float(np.mean(np.asarray(costs)[taken]))


def sweep(points: Sequence[OperatingPoint], count: int = 20) -> list[OperatingPoint]:
    """Thins operating points to about `count` budgets between the cheapest and the dearest.

    For each budget the most accurate point that keeps it remains; of no points none.
    """
    if not points:
        return []
    costs = np.array([point.cost for point in points])
    budgets = np.linspace(costs[0], costs[-1], count)
    kept = sorted({int(np.searchsorted(costs, budget, side="right")) - 1 for budget in budgets})
    return [points[index] for index in kept]


def within_accuracy(
    points: Sequence[OperatingPoint], reference: float, max_accuracy_drop: float
) -> int:
    """Returns the index of the cheapest point that is accurate enough.

    Args:
        points: with a `validation_accuracy` each, sorted by cost.
        reference: accuracy, a fraction.
        max_accuracy_drop: how far below it a point may be, a fraction.

    Raises:
        ArgumentError: no point reaches it; the best reachable accuracy is named.
    """
    for index, point in enumerate(points):
        if point.validation_accuracy >= reference - max_accuracy_drop - _ROUNDING:
            return index
    best = max(point.validation_accuracy for point in points)
    accepted = (
        f"at least {reference - best:.4f}: the best reachable validation accuracy is {best:.4f}, "
        f"of {reference:.4f}"
    )
    raise ArgumentError("max_accuracy_drop", accepted, max_accuracy_drop)


def within_budget(points: Sequence[OperatingPoint], budget: float) -> int:
    """Returns the index of the most accurate point whose expected cost is at most `budget`.

    Args:
        points: by increasing cost and accuracy; at least one.
        budget: in the unit of their costs.

    Raises:
        ArgumentError: every point costs more; the least reachable cost is named.
    """
    affordable = [index for index, point in enumerate(points) if point.cost <= budget]
    if not affordable:
        accepted = f"at least {points[0].cost:.4f}, the least that any choice costs"
        raise ArgumentError("budget", accepted, budget)
    return affordable[-1]
