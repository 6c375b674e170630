"""What is recommended: thresholds, or a classifier without exits. Costs and cases by hand."""

import numpy as np
import pytest

from kdtoolkit import models
from kdtoolkit.edge.package import OperatingPoint
from kdtoolkit.export import thresholds
from kdtoolkit.export.early_exit_choice import Alone, choose
from kdtoolkit.export.stage_timing import relative_costs

COSTS = (0.4, 0.7, 1.1)
EXITS = [
    Alone("exit_1", 0.40, 0.70, 0.0),
    Alone("exit_2", 0.65, 0.85, 0.0),
    Alone("exit_3", 1.00, 0.90, 0.0),
]
POINTS = [
    OperatingPoint((0.2, 0.3), 0.75, 0.50),
    OperatingPoint((0.5, 0.5), 0.88, 0.70),
    OperatingPoint((0.8, 0.9), 0.91, 0.95),
]


def decide(points=POINTS, alone=EXITS, max_drop=0.02, budget=None, costs=COSTS):
    return choose(points, alone, costs, max_drop, budget)


def test_early_exit_that_pays():
    decision = decide()
    assert decision.operating_point == 1  # 0.88 is at most 0.02 below 0.90
    assert (decision.recommended, decision.alone) == ("early_exit", "exit_3")
    assert decision.verdict == (
        "Early exit pays (plain network without heads = 1): the operating point costs 0.700, with "
        "88.00% of the validation images right; exit_3 alone costs 1.000, with 90.00% of the "
        "validation images right."
    )


def test_an_exit_alone_may_be_the_cheapest():
    decision = decide(max_drop=0.05)
    assert (decision.recommended, decision.alone) == ("exit_2", "exit_2")
    assert decision.operating_point == 1  # the file's own: dearer, and more accurate
    assert "1): exit_2 alone costs 0.650" in decision.verdict
    assert "the nearest operating point costs 0.700" in decision.verdict


@pytest.mark.parametrize(
    "budget, recommended, alone, point",
    [
        (0.45, "exit_1", "exit_1", None),
        (0.60, "early_exit", "exit_1", 0),
        (0.68, "exit_2", "exit_2", 0),
        (0.80, "early_exit", "exit_2", 1),
        (1.00, "early_exit", "exit_3", 2),
    ],
)
def test_choice_by_budget(budget, recommended, alone, point):
    decision = decide(budget=budget)
    assert (decision.recommended, decision.alone) == (recommended, alone)
    assert decision.operating_point == point


def test_a_budget_that_nothing_keeps():
    with pytest.raises(ValueError, match=r"`budget` must be at least 0\.4000.*budget=0\.3"):
        decide(budget=0.3)


def test_the_plain_network_may_be_better_than_the_deepest_exit():
    alone = [*EXITS, Alone("baseline", 1.0, 0.95, 0.0)]
    assert thresholds.unbeaten(POINTS, alone) == POINTS  # all are cheaper
    decision = decide(alone=alone, max_drop=0.05)  # of 0.95, where the deepest exit has 0.90
    assert (decision.recommended, decision.operating_point) == ("early_exit", 2)
    assert decision.alone == "baseline"  # as dear as exit_3, and more accurate
    decision = decide(alone=alone)
    assert (decision.recommended, decision.operating_point) == ("baseline", None)
    assert decision.alone == "baseline"
    assert "1): the plain network costs 1.000, with 95.00%" in decision.verdict


def test_no_thresholds_are_worth_their_heads():
    decision = decide([])
    assert (decision.recommended, decision.operating_point) == ("exit_3", None)
    assert decision.verdict == (
        "Early exit does not pay here (plain network without heads = 1): exit_3 alone costs 1.000, "
        "with 90.00% of the validation images right; with any thresholds that are as accurate, "
        "too few images stop early to make up for the heads on their way (1.100 for going on to "
        "the end)."
    )


def sure_of_every_second(classes=10, n=200):
    """Logits of three exits: even images are easy, odd ones are right at the last exit alone."""
    labels = np.arange(n) % classes
    easy = np.arange(n) % 2 == 0
    right = np.eye(classes)[labels]
    shallow = np.where(easy[:, None], 9 * right, np.roll(right, 1, axis=1))
    return [shallow, shallow, 9 * right], labels


@pytest.mark.parametrize("mid", [None, 128])
def test_resnet8_on_cifar10(mid):
    """Half of the images can stop at exit 1. Heads of the paper's width make that a loss."""
    network = models.add_exits(models.build("resnet8", (32, 32, 3), 10), mid=mid)
    first = 16 if mid is None else mid
    plain, stage1 = 12_501_632, 5_160_960
    head1 = 1024 * 16 * first + 64 * (16 * first * first + 64 * first) + 640
    head2 = 256 * 32 * first + 64 * (4 * first * first + 64 * first) + 640
    stage2 = 256 * (9 * (16 * 32 + 32 * 32) + 16 * 32)
    costs = models.exit_costs(network)
    assert costs == pytest.approx(
        {
            "exit_1": (stage1 + head1) / plain,
            "exit_2": (stage1 + head1 + stage2 + head2) / plain,
            "exit_3": (plain + head1 + head2) / plain,
        }
    )
    alone_costs = models.cut_costs(network)
    assert alone_costs == pytest.approx(
        {
            "exit_1": (stage1 + head1) / plain,
            "exit_2": (stage1 + stage2 + head2) / plain,
            "exit_3": 1.0,
        }
    )
    logits, labels = sure_of_every_second()
    costs = list(costs.values())
    alone = [
        Alone(name, cost, float(np.mean(z.argmax(-1) == labels)), 0.0)
        for (name, cost), z in zip(alone_costs.items(), logits, strict=True)
    ]
    assert [choice.validation_accuracy for choice in alone] == [0.5, 0.5, 1.0]
    frontier = thresholds.operating_points(logits, labels, [1.0] * 3, costs)
    points = thresholds.unbeaten(frontier, alone)
    decision = choose(points, alone, costs, 0.005, wide_heads_hint="a hint")
    if mid is None:
        # Half at 0.460, half at 1.068; going on, or stopping always, is beaten by exits alone.
        assert decision.recommended == "early_exit"
        point = points[decision.operating_point]
        assert (
            point.cost == pytest.approx((costs[0] + costs[2]) / 2) == pytest.approx(0.764, abs=1e-3)
        )
        assert point.validation_accuracy == 1.0
    else:
        assert costs[0] == pytest.approx(1.965, abs=1e-3)  # 24.6M of 12.5M
        assert (points, decision.recommended) == ([], "exit_3")
        assert "even stopping at exit_1 costs 1.965; a hint." in decision.verdict


def test_milliseconds_are_relative_to_the_plain_networks():
    # Behind the others 2, 5, 4 (noise: a deeper exit is not cheaper); alone 3 (noise), 4, 4.
    costs, alone = relative_costs([2.0, 5.0, 4.0], [3.0, 4.0, 4.0])
    assert costs == [0.5, 1.25, 1.25]
    assert alone == [0.5, 1.0, 1.0]
