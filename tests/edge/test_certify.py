"""Certificates against SciPy, and against the truth where it is known."""

import numpy as np
import pytest
from scipy import stats

from kdtoolkit._checks import ArgumentError
from kdtoolkit.edge.certify import (
    betting_p_value,
    binomial_p_value,
    certify,
    images_needed,
)

RNG = np.random.default_rng(11)
# Shares of images that operating points decide otherwise, cheapest first.
TRUTH = np.linspace(0.06, 0, 31)


def draw(images, rng=RNG):
    """What the points and the whole network decide: one goes wrong where the cheaper ones do."""
    u = rng.random(images)
    return [(u < share).astype(int) for share in TRUTH], np.zeros(images, int)


@pytest.mark.parametrize(
    ("failures", "images", "limit"), [(3, 500, 0.01), (0, 100, 0.02), (40, 5000, 0.01), (7, 7, 0.5)]
)
def test_binomial(failures, images, limit):
    expected = stats.binom.cdf(failures, images, limit)
    assert binomial_p_value(failures, images, limit) == pytest.approx(expected, rel=1e-9)


def test_binomial_of_many_images():
    expected = stats.binom.cdf(900, 100_000, 0.01)
    assert binomial_p_value(900, 100_000, 0.01) == pytest.approx(expected, rel=1e-6)


def test_bets_by_hand():
    """Two losses: the first stake is of the variance 1/4, and the capital of a win grows."""
    m = 1.1 / 2
    first = min(np.sqrt(2 * np.log(10) / (2 * 0.25)), 0.75 / (1 - m))
    x = 0.5  # of a loss of 0
    variance = (0.25 + (x - 0.5) ** 2) / 2
    second = min(np.sqrt(2 * np.log(10) / (2 * variance)), 0.75 / (1 - m))
    capital = (1 - first * (x - m)) * (1 - second * (0 - m))  # then a gain: a loss of -1
    assert betting_p_value(np.array([0, -1]), 0.1) == pytest.approx(1 / capital)


@pytest.mark.parametrize(("lost", "gained"), [(0.01, 0.0), (0.03, 0.02)])
def test_bets_are_seldom_won_at_the_limit(lost, gained):
    """In at most a tenth of the draws, and three standard errors; below the limit often."""

    def won(lost):
        shares = [lost, 1 - lost - gained, gained]
        draws = RNG.choice([1, 0, -1], (1000, 2500), p=shares)
        return np.mean([betting_p_value(losses, 0.01) <= 0.1 for losses in draws])

    assert won(lost) < 0.1 + 3 * np.sqrt(0.09 / 1000)
    assert won(gained) > 0.6


def test_the_limit_holds_in_nine_draws_of_ten():
    """10,000 draws of 1,200 images: in a tenth and no more the certified point is beyond it."""
    limit, images = 0.02, 1200
    most = max(k for k in range(100) if stats.binom.cdf(k, images, limit) <= 0.1)
    u = np.sort(RNG.random((10_000, images)))
    counts = np.stack([(u < share).sum(axis=1) for share in TRUTH], axis=1)
    passed = np.cumprod(counts[:, ::-1] <= most, axis=1).sum(axis=1)  # from the dearest
    broken = TRUTH[-passed] > limit
    assert passed.min() > 0 and broken.mean() <= 0.1
    # The cheapest whose observed share is within the limit.
    chosen = (counts <= limit * images).argmax(axis=1)
    assert (TRUTH[chosen] > limit).mean() > 0.3

    for _ in range(30):
        decisions, whole = draw(images)
        found = certify(decisions, whole, limit=limit)
        counts = [int(each.sum()) for each in decisions]
        expected = next(k for k in range(31) if max(counts[k:]) <= most)
        assert found.index == expected
        assert found.observed == counts[expected] / images
        below = stats.binom.cdf(counts[expected], images, found.bound)
        assert below == pytest.approx(0.1, rel=1e-6) and found.bound <= limit


def test_gains_are_taken_against_losses():
    """A point that loses 2% and gains 2% is as accurate, and disagrees in 4%."""
    labels = np.zeros(5000, int)
    whole, point = labels.copy(), labels.copy()
    order = RNG.permutation(5000)
    whole[order[:100]], point[order[100:200]] = 1, 1
    assert certify([point, whole], whole).index == 1
    found = certify([point, whole], whole, labels, risk="accuracy", limit=0.01)
    assert (found.index, found.observed) == (0, 0)


def test_order_of_images_certifies_nothing():
    """Sorted by class, as splits are: only the last images lose."""
    labels = np.repeat(np.arange(10), 100)
    point = labels.copy()
    point[950:] = 0
    found = certify([point, labels], labels, labels, risk="accuracy", limit=0.01)
    assert (found.index, found.observed) == (1, 0)
    assert certify([point], labels, labels, risk="accuracy", limit=0.01).bound > 0.05


def test_sentences():
    decisions, whole = draw(5000)
    found = certify(decisions, whole)
    assert str(found) == (
        "with 90% confidence at most 1% of decisions differ from the whole network's (5,000 images)"
    )
    few = certify([whole[:100]] * 2, whole[:100])
    assert few.index is None and few.observed == 0
    assert str(few) == (
        "no operating point is certified: with 90% confidence at most 2.28% of decisions differ "
        "from the whole network's, and the limit is 1% (100 images; less than 230 images "
        "certify nothing)"
    )
    sure = certify([whole], whole, limit=0.004, confidence=0.999)
    assert str(sure).startswith("with 99.9% confidence at most 0.4% of decisions differ")
    assert 0.99**230 <= 0.1 < 0.99**229
    assert images_needed(0.01, 0.9) == 230
    assert few.bound == pytest.approx(1 - 0.1**0.01, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "argument", "message"),
    [
        ({"limit": 1}, "limit", r"in \(0, 1\)"),
        ({"confidence": 0}, "confidence", r"in \(0, 1\)"),
        ({"risk": "loss"}, "risk", "one of disagreement, accuracy"),
        ({"risk": "accuracy"}, "labels", "given for the risk accuracy"),
        ({"labels": np.zeros(3), "risk": "accuracy"}, "labels", r"shape \(10,\).*\(3,\)"),
        ({"decisions": []}, "decisions", "at least one point and one image.*0 points and 10"),
        ({"decisions": [np.zeros(9)]}, "decisions", r"shape \(10,\)"),
    ],
)
def test_one_line_errors(options, argument, message):
    given = {"decisions": [np.zeros(10)], "whole": np.zeros(10), **options}
    with pytest.raises(ArgumentError, match=message) as error:
        certify(**given)
    assert error.value.argument == argument and "\n" not in str(error.value)
