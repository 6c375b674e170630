import numpy as np
import pytest

from kdtoolkit import analysis
from kdtoolkit._checks import ArgumentError


def test_counts_by_hand():
    logits = np.array(
        [
            [5.0, 3, 1, 0],  # true 0: second 1
            [5, 1, 3, 0],  # true 0: second 2
            [3, 5, 1, 0],  # true 0 is the second itself
            [1, 3, 5, 0],  # true 0 is third: second 1
            [0, 5, 3, 3],  # true 1, a tie: the first of both
        ]
    )
    expected = [[1, 2, 1, 0], [0, 0, 1, 0], [0] * 4, [0] * 4]
    found = analysis.count_second_choices(logits, np.array([0, 0, 0, 0, 1]))
    np.testing.assert_array_equal(found, expected)


def test_groups_by_hand():
    counts = np.array([[5, 3, 1, 0], [2, 0, 2, 0], [0, 0, 0, 1], [0, 0, 0, 0]])
    found = analysis.within_groups(counts, np.array([7, 7, 8, 8]))
    assert found.share == pytest.approx((3 + 2 + 1) / 9)
    assert found.chance == pytest.approx(1 / 3)  # one other of the group, of three others
    # Row 0: pairs of 4 alike 3 * 2 of 4 * 3; row 1: 2 + 2 of 12; row 2 has no pair.
    assert found.concentration == pytest.approx((6 / 12 + 4 / 12) / 2)
    assert found.diagonal == pytest.approx(5 / 14)


def test_groups_of_other_sizes_by_chance():
    """A uniform second choice is in the group as often as chance says."""
    groups = np.array([0, 0, 0, 1, 1])
    counts = np.ones((5, 5), int) - np.eye(5, dtype=int)
    found = analysis.within_groups(counts, groups)
    assert found.share == pytest.approx(found.chance) == pytest.approx((3 * 2 + 2 * 1) / 20)
    assert found.concentration == 0  # never two alike


def test_groups_from_images_with_both_labels():
    labels = np.array([2, 0, 1, 2])
    groups = analysis.groups_of(labels, np.array([4, 3, 3, 4]), 3)
    np.testing.assert_array_equal(groups, [3, 3, 4])
    with pytest.raises(ArgumentError, match="class 2 in two"):
        analysis.groups_of(labels, np.array([4, 3, 3, 5]), 3)
    with pytest.raises(ArgumentError, match="none of class 3"):
        analysis.groups_of(labels, np.array([4, 3, 3, 4]), 4)


def test_nothing_off_the_diagonal():
    with pytest.raises(ArgumentError, match="off the diagonal"):
        analysis.within_groups(np.eye(3, dtype=int), np.zeros(3, int))
    with pytest.raises(ArgumentError, match="one for each row"):
        analysis.within_groups(np.ones((3, 3), int), np.zeros(2, int))
