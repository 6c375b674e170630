"""Intervals against numbers that were worked out by hand, and their coverage of a known truth."""

import numpy as np
import pytest

from kdtoolkit._checks import ArgumentError
from kdtoolkit.intervals import difference, t_interval


def test_t_interval_of_three_seeds():
    # Mean 2, deviation 1; t of 0.975 with two degrees of freedom is 4.302653.
    half = 4.302653 / np.sqrt(3)
    assert t_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - half, 2 + half), abs=1e-5)
    assert t_interval([1.0]) is None


def test_difference_is_paired():
    """A student that is right wherever the other is, and on every tenth image besides."""
    other = np.arange(1000) % 2 == 0
    better = other | (np.arange(1000) % 10 == 1)
    found = difference([better, better], [other, other])
    assert found.mean == pytest.approx(0.1)
    assert found.by_seed == pytest.approx((0.1, 0.1))
    assert found.over_seeds == pytest.approx((0.1, 0.1))
    # A share of 0.1 of 1000 images has a standard error of sqrt(0.1 * 0.9 / 1000).
    half = 1.959964 * np.sqrt(0.09 / 1000)
    assert found.over_images == pytest.approx((0.1 - half, 0.1 + half), abs=1e-3)


def test_images_count_once_for_all_seeds():
    """Of an image that every seed gains the seeds are no new evidence."""
    other, better = np.zeros(400, bool), np.arange(400) % 4 == 0
    one = difference([better], [other])
    three = difference([better] * 3, [other] * 3)
    assert one.over_seeds is None
    assert three.over_images == pytest.approx(one.over_images, abs=2e-3)


@pytest.mark.parametrize(
    ("correct", "than", "said"),
    [
        ([4], [4, 4, 4], r"`than` must be of as many seeds and images as `correct`, \(1, 4\). Rec"),
        ([4, 4], [3, 3], r"Received: \(2, 3\)"),
        ([4, 3], [4, 4], r"`correct` must be booleans `\(images,\)`.*Received: \(3,\), \(4,\)"),
        ([(2, 2)], [(2, 2)], r"Received: \(2, 2\)"),
        ([], [], "Received: no seed"),
    ],
)
def test_what_is_not_paired_is_no_difference(correct, than, said):
    with pytest.raises(ArgumentError, match=said):
        difference([np.ones(shape, bool) for shape in correct], [np.ones(s, bool) for s in than])


def test_confidence_is_a_fraction():
    for call in (lambda: t_interval([0.1, 0.3], confidence=95), lambda: t_interval([0.1], 1.0)):
        with pytest.raises(ArgumentError, match=r"`confidence` must be in \(0, 1\)"):
            call()


def test_ninety_five_of_a_hundred_intervals_hold_the_truth():
    generator = np.random.default_rng(1)
    held = np.zeros(2)
    for _ in range(400):
        # Over images: the truth is a gain of 0.02. Over seeds: deviations of 0.5 around 1.
        gain = generator.choice([-1, 0, 1], 500, p=[0.08, 0.82, 0.10])
        low, high = difference([gain > 0], [gain < 0]).over_images
        held[0] += low <= 0.02 <= high
        low, high = t_interval(generator.normal(1, 0.5, 3))
        held[1] += low <= 1 <= high
    # Three standard errors of 0.95 over 400 draws.
    assert np.all(np.abs(held / 400 - 0.95) < 0.033)
