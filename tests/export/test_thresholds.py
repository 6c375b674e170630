"""Temperatures and thresholds against brute force."""

import itertools
import tracemalloc

import numpy as np
import pytest

from kdtoolkit._checks import ArgumentError
from kdtoolkit.edge.decisions import decide
from kdtoolkit.edge.package import OperatingPoint
from kdtoolkit.export import thresholds
from tests.losses import reference

RNG = np.random.default_rng(0)
N, CLASSES = 60, 5
LABELS = RNG.integers(0, CLASSES, N)
COSTS = (0.2, 0.5, 1.0)


def logits(strength):
    z = RNG.normal(size=(N, CLASSES))
    z[np.arange(N), LABELS] += strength
    return z


LOGITS = [logits(0.5), logits(1.0), logits(1.5)]


def run(chosen, temperatures):
    """What an image-by-image early exit does: accuracy and mean cost."""
    correct = cost = 0
    for i in range(N):
        for k in range(3):
            f = reference.softmax(LOGITS[k][i] / temperatures[k])
            if k == 2 or f.max() >= chosen[k]:
                correct += f.argmax() == LABELS[i]
                cost += COSTS[k]
                break
    return correct / N, cost / N


def test_temperature_undoes_a_factor():
    """Labels drawn from softmax(z): logits given as 2.5 z are calibrated by temperature 2.5."""
    z = RNG.normal(size=(20_000, CLASSES)) * 2
    f = reference.softmax(z)
    labels = (f.cumsum(-1) < RNG.random((len(z), 1))).sum(-1)
    assert thresholds.calibrate(2.5 * z, labels) == pytest.approx(2.5, rel=0.05)


def test_points_are_what_running_them_gives():
    temperatures = (1.5, 0.8, 1.0)
    points = thresholds.operating_points(LOGITS, LABELS, temperatures, COSTS)
    assert len(points) > 5
    for point in points:
        accuracy, cost = run(point.thresholds, temperatures)
        assert point.validation_accuracy == pytest.approx(accuracy)
        assert point.cost == pytest.approx(cost)
        again = thresholds.evaluate(LOGITS, LABELS, temperatures, COSTS, point.thresholds)
        assert again == pytest.approx((accuracy, cost))
    accuracies = [point.validation_accuracy for point in points]
    assert accuracies == sorted(set(accuracies))
    assert [p.cost for p in points] == sorted(p.cost for p in points)


def test_no_combination_of_thresholds_is_better():
    """Brute force over a grid of thresholds: none lies above the curve."""
    points = thresholds.operating_points(LOGITS, LABELS, (1, 1, 1), COSTS)
    for chosen in itertools.product(np.linspace(0.2, 1.01, 12), repeat=2):
        accuracy, cost = run(chosen, (1, 1, 1))
        best = max(p.validation_accuracy for p in points if p.cost <= cost + 1e-9)
        assert best >= accuracy - 1e-9


def many(exits):
    """Logits and costs of exits that get better, and the labels of their images."""
    rng = np.random.default_rng(exits)
    labels = rng.integers(0, CLASSES, N)
    z = rng.normal(size=(exits, N, CLASSES))
    z[:, np.arange(N), labels] += np.linspace(0.2, 2, exits)[:, None]
    return list(z), labels, np.linspace(0.1, 1, exits)


@pytest.mark.parametrize("exits", [9, 12, 18])
def test_many_exits(exits):
    """Of few levels some are of use: those that choose between images, where there are any."""
    z, labels, costs = many(exits)
    tracemalloc.start()
    points = thresholds.operating_points(z, labels, (1,) * exits, costs)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 50e6  # a few arrays of 250,000 combinations
    for point in points:
        again = thresholds.evaluate(z, labels, (1,) * exits, costs, point.thresholds)
        assert again == pytest.approx((point.validation_accuracy, point.cost))
    between = {t for point in points for t in point.thresholds} - {0.0, thresholds.NEVER}
    assert bool(between) == (exits < 18)


def test_too_many_exits():
    z, labels, costs = many(19)
    with pytest.raises(ValueError, match=r"`logits` must be of at most 18 exits. Received: 19"):
        thresholds.operating_points(z, labels, (1,) * 19, costs)


def test_a_single_exit_has_one_point():
    points = thresholds.operating_points(LOGITS[2:], LABELS, (1,), (1.0,))
    accuracy = (LOGITS[2].argmax(-1) == LABELS).mean()
    assert points == [OperatingPoint((), pytest.approx(accuracy), 1.0)]


POINTS = [OperatingPoint((0.1 * i,), 0.5 + 0.1 * i, 0.2 * (i + 1)) for i in range(5)]


def test_choice_by_accuracy_and_by_budget():
    assert thresholds.within_accuracy(POINTS, 0.9, 0.15) == 3  # 0.8 is the first from 0.75
    assert thresholds.within_budget(POINTS, 0.65) == 2
    with pytest.raises(
        ValueError, match=r"0\.0500.*best reachable.*0\.9000.*max_accuracy_drop=0\.01"
    ):
        thresholds.within_accuracy(POINTS, 0.95, 0.01)
    with pytest.raises(ValueError, match=r"at least 0\.2000.*budget=0\.1"):
        thresholds.within_budget(POINTS, 0.1)


def test_a_loss_of_exactly_the_limit_is_kept():
    points = [OperatingPoint((0.5,), 9 / 1000, 0.5), OperatingPoint((2.0,), 14 / 1000, 1.0)]
    assert 14 / 1000 - 5 / 1000 > 9 / 1000  # in floating point
    assert thresholds.within_accuracy(points, 14 / 1000, 5 / 1000) == 0


def test_points_that_another_choice_beats_are_left_out():
    """As accurate and not dearer is enough; cheaper alone, or more accurate alone, is not."""
    points = [
        OperatingPoint((0.0,), 0.70, 0.30),  # exit 1 alone is the same
        OperatingPoint((0.5,), 0.80, 0.55),  # exit 2 alone is cheaper, and less accurate
        OperatingPoint((0.6,), 0.90, 0.80),
        OperatingPoint((0.9,), 0.92, 1.00),  # the plain network is as good
        OperatingPoint((0.95,), 0.93, 1.05),  # dearer than the plain network, and more accurate
        OperatingPoint((2.0,), 0.94, 1.10),  # another is better in both
    ]
    others = [
        OperatingPoint((), accuracy, cost)
        for accuracy, cost in [(0.70, 0.30), (0.79, 0.50), (0.92, 1.00), (0.95, 1.06)]
    ]
    assert thresholds.unbeaten(points, others) == [points[1], points[2], points[4]]
    assert thresholds.unbeaten(points, []) == points
    assert thresholds.unbeaten(points, [OperatingPoint((), 1.0, 0.1)]) == []


def test_frontier():
    assert thresholds.frontier([0.5, 0.9, 0.6, 0.9, 0.9], [0.2, 0.8, 0.5, 0.7, 0.7]) == [0, 2, 3]
    assert thresholds.frontier([0.5, 0.7], [0.3, 0.3]) == [1]


def test_sweep_keeps_the_ends_and_the_best_of_each_budget():
    kept = thresholds.sweep(POINTS, 3)
    assert kept == [POINTS[0], POINTS[2], POINTS[4]]
    assert thresholds.sweep([]) == []


def test_a_path_leads_from_the_cheapest_to_the_whole_network():
    """Every point that is better than another, by how often it decides as the last exit."""
    temperatures = (1.0, 0.8, 1.2)
    points = thresholds.path(LOGITS, LABELS, temperatures, COSTS)
    assert points[-1].thresholds == (thresholds.NEVER, thresholds.NEVER)
    whole = LOGITS[-1].argmax(-1)

    def alike(point):
        return np.mean(thresholds.decide(LOGITS, temperatures, point.thresholds)[0] == whole)

    shares = [alike(point) for point in points]
    assert shares == sorted(shares) and shares[-1] == 1
    assert [point.cost for point in points] == sorted(point.cost for point in points)
    for point in points:
        expected = run(point.thresholds, temperatures)
        assert (point.validation_accuracy, point.cost) == pytest.approx(expected)


def test_certified_points_agree_with_the_whole_network():
    """Of 60 images all must agree for a limit of 4%: 0.96^60 is 0.086."""
    points = thresholds.path(LOGITS, LABELS, (1.0, 1.0, 1.0), COSTS)
    found = thresholds.certify(LOGITS, None, (1.0, 1.0, 1.0), points, limit=0.04)
    whole = LOGITS[-1].argmax(-1)
    alike = [
        (thresholds.decide(LOGITS, (1, 1, 1), point.thresholds)[0] == whole).all()
        for point in points
    ]
    assert found.index == alike.index(True) and found.images == N
    assert 0.96**60 <= 0.1


def test_what_is_nearly_sure_is_sure():
    """A sum of float32 cannot be between 1 and 1 + 2^-23: devices stop there at every threshold."""
    margins = np.array([14.0, 15.0, 16.0, 17.0, 18.0, 30.0])
    z = np.stack([margins, np.zeros(6)], axis=-1)
    sums = np.array([np.float32(1) + np.exp(np.float32(-margin)) for margin in margins])
    assert sums.dtype == np.float32 and list(sums == 1) == [False, False, False, True, True, True]
    _, exits = decide([z, z], (1.0, 1.0), (1 - 1e-9,))
    assert list(exits) == [1, 1, 1, 0, 0, 0]
    wrong = [np.where(sums[:, None] == 1, z[:, ::-1], z), z]  # where the first exit is sure
    labels = np.zeros(6, int)
    for point in thresholds.operating_points(wrong, labels, (1.0, 1.0), (0.5, 1.0)):
        confidences = 1 / sums.astype(np.float64)
        stops = confidences >= point.thresholds[0]
        assert point.validation_accuracy == np.mean(~stops | (sums != 1))
        assert point.cost == np.mean(np.where(stops, 0.5, 1.0))


def test_labels_as_a_column():
    column = LABELS[:, None]
    assert thresholds.calibrate(LOGITS[2], column) == thresholds.calibrate(LOGITS[2], LABELS)
    points = thresholds.operating_points(LOGITS, column, (1, 1, 1), COSTS)
    assert points == thresholds.operating_points(LOGITS, LABELS, (1, 1, 1), COSTS)
    levels = (0.4, 0.4)
    found = thresholds.evaluate(LOGITS, column, (1, 1, 1), COSTS, levels)
    assert found == pytest.approx(run(levels, (1, 1, 1)))
    options = {"risk": "accuracy", "limit": 0.5}
    found = thresholds.certify(LOGITS, column, (1, 1, 1), points, **options)
    assert found == thresholds.certify(LOGITS, LABELS, (1, 1, 1), points, **options)


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        (LABELS[:1], r"int64 \(1,\)"),
        (np.eye(CLASSES, dtype=int)[LABELS], r"int64 \(60, 5\)"),
        (LABELS.astype(float), r"float64 \(60,\)"),
        (LABELS + 1, "from 1 to 5"),
    ],
)
def test_wrong_labels(labels, received):
    message = f"Argument `labels` must be 60 integers from 0 to 4.*Received: {received}"
    with pytest.raises(ArgumentError, match=message):
        thresholds.calibrate(LOGITS[0], labels)
    with pytest.raises(ArgumentError, match=message):
        thresholds.operating_points(LOGITS, labels, (1, 1, 1), COSTS)
    with pytest.raises(ArgumentError, match=message):
        thresholds.evaluate(LOGITS, labels, (1, 1, 1), COSTS, (0.4, 0.4))
