"""Thresholds, or a classifier without exits: which is better on validation images, and why."""

from collections.abc import Sequence
from dataclasses import dataclass

from kdtoolkit.edge.certify import Certificate
from kdtoolkit.edge.package import OperatingPoint
from kdtoolkit.export import thresholds

SCALE = "plain network without heads = 1"
WIDE_HEADS_HINT = "`mid` of `add_exits` sets their width"


@dataclass(frozen=True)
class Alone:
    """A classifier without exits: one cut at an exit, or the plain network.

    What is cut at the deepest exit is the plain network too, as it was trained with exits.

    Attributes:
        name: of the exit, or `"baseline"`.
        cost: relative to the plain network's.
        validation_accuracy, test_accuracy: fractions.
    """

    name: str
    cost: float
    validation_accuracy: float
    test_accuracy: float

    def __str__(self):
        return "the plain network" if self.name == "baseline" else f"{self.name} alone"


@dataclass(frozen=True)
class Choice:
    """What is recommended.

    Attributes:
        operating_point: index of the best operating point; None where none is good enough.
        alone: name of the best classifier without exits.
        recommended: the better of the two: that name, or `"early_exit"`.
        verdict: a sentence that says so, and why.
    """

    operating_point: int | None
    alone: str
    recommended: str
    verdict: str


def choose(
    points: Sequence[OperatingPoint],
    alone: Sequence[Alone],
    costs: Sequence[float],
    max_accuracy_drop: float = 0.005,
    budget: float | None = None,
    wide_heads_hint: str = WIDE_HEADS_HINT,
) -> Choice:
    """Chooses between thresholds and classifiers without exits, on validation images.

    Args:
        points: operating points that no classifier alone beats, by increasing cost and accuracy.
        alone: one for each exit, shallow to deep, and one for the plain network if it was trained
            on its own.
        costs: of stopping at each exit of the network with all heads, relative to the plain
            network's.
        max_accuracy_drop: fraction. The cheapest is chosen whose accuracy is at most this below
            `reference_accuracy`.
        budget: in its place the most accurate is chosen that costs at most this; or None.
        wide_heads_hint: ends the verdict where heads are too wide to save anything.

    Raises:
        ArgumentError: nothing keeps the `budget`.
    """
    demand = reference_accuracy(alone, len(costs)), max_accuracy_drop, budget
    single = best(alone, *demand)
    point = best_point(points, *demand)
    pays = point is not None and best([single, point], *demand) is point
    facts = f"{single} {_figures(single)}"
    if pays:
        verdict = f"Early exit pays ({SCALE}): the operating point {_figures(point)}; {facts}."
    else:
        nearest = point or (points[-1 if budget is None else 0] if points else None)
        reason = _reason(nearest, costs, wide_heads_hint)
        verdict = f"Early exit does not pay here ({SCALE}): {facts}; {reason}."
    return Choice(
        operating_point=None if point is None else points.index(point),
        alone=single.name,
        recommended="early_exit" if pays else single.name,
        verdict=verdict,
    )


def choose_certified(
    alone: Sequence[Alone], points: Sequence[OperatingPoint], certificate: Certificate
) -> Choice:
    """Recommends the cheapest certified operating point, or the whole network.

    Args:
        alone: as for `choose`; of the classifiers only the deepest exit's decides as certified.
        points: that are certified, cheapest first; none where nothing is.
        certificate: of them.
    """
    whole = max((one for one in alone if one.name != "baseline"), key=lambda one: one.cost)
    pays = bool(points) and points[0].cost < whole.cost
    if pays:
        verdict = f"Early exit pays ({SCALE}): the operating point {_figures(points[0])}"
    else:
        verdict = f"Early exit does not pay here ({SCALE}): {whole} {_figures(whole)}"
    return Choice(
        operating_point=0 if points else None,
        alone=whole.name,
        recommended="early_exit" if pays else whole.name,
        verdict=f"{verdict}; {certificate}.",
    )


def reference_accuracy(alone: Sequence[Alone], exits: int) -> float:
    """The accuracy of going on to the end: the deepest exit's, or the plain network's if better."""
    return max(choice.validation_accuracy for choice in alone[exits - 1 :])


def best(candidates, reference: float, max_accuracy_drop: float, budget: float | None):
    """Returns the best of some choices.

    Args:
        candidates: anything with a `validation_accuracy` and a `cost`.
        reference: accuracy from which `max_accuracy_drop` counts, a fraction.
        max_accuracy_drop, budget: as for `choose`.

    Raises:
        ArgumentError: none is good enough.
    """
    accuracies = [candidate.validation_accuracy for candidate in candidates]
    order = thresholds.frontier(accuracies, [candidate.cost for candidate in candidates])
    kept = [candidates[index] for index in order]
    if budget is None:
        return kept[thresholds.within_accuracy(kept, reference, max_accuracy_drop)]
    return kept[thresholds.within_budget(kept, budget)]


def best_point(
    points: Sequence[OperatingPoint],
    reference: float,
    max_accuracy_drop: float,
    budget: float | None,
) -> OperatingPoint | None:
    """As `best`; None where no operating point is good enough."""
    try:
        return best(points, reference, max_accuracy_drop, budget) if points else None
    except ValueError:
        return None


def _figures(choice):
    return (
        f"costs {choice.cost:.3f}, with {choice.validation_accuracy:.2%} of the validation images "
        "right"
    )


def _reason(nearest, costs, wide_heads_hint):
    """Why no thresholds are better than a classifier alone: the nearest point is not, if any."""
    if costs[0] >= 1:
        return (
            f"with heads this wide even stopping at exit_1 costs {costs[0]:.3f}; {wide_heads_hint}"
        )
    if nearest is not None:
        return f"the nearest operating point {_figures(nearest)}"
    return (
        "with any thresholds that are as accurate, too few images stop early to make up for the "
        f"heads on their way ({costs[-1]:.3f} for going on to the end)"
    )
