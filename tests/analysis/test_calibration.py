import numpy as np
import pytest

from kdtoolkit import analysis


def test_known_error():
    """Sure by .9 and right by .6, sure by .55 and right by .75: .3 and .2 apart."""
    sure, unsure = np.log([0.9, 0.1]), np.log([0.55, 0.45])
    logits = np.array([sure] * 10 + [unsure] * 20)
    labels = np.array([0] * 6 + [1] * 4 + [0] * 15 + [1] * 5)
    found = analysis.reliability(logits, labels, bins=10)
    np.testing.assert_array_equal(found.counts, [0, 0, 0, 0, 0, 20, 0, 0, 10, 0])
    assert found.error == pytest.approx((10 * 0.3 + 20 * 0.2) / 30, rel=1e-12)
    np.testing.assert_allclose(found.confidences[[5, 8]], [0.55, 0.9])
    np.testing.assert_allclose(found.accuracies[[5, 8]], [0.75, 0.6])
    assert np.isnan(found.accuracies[0]) and np.isnan(found.confidences[0])


def test_all_confidences_have_a_bin():
    logits = np.array([[1000.0, 0], [0, 0]])  # exactly 1 and one half
    np.testing.assert_array_equal(analysis.reliability(logits, [0, 0], 2).counts, [1, 1])


def test_temperature_takes_over_confidence_away():
    """Labels are drawn from the scores of logits; a network with thrice those is too sure."""
    random = np.random.default_rng(0)
    honest = random.normal(0, 2, (20000, 4))
    scores = np.exp(honest) / np.exp(honest).sum(-1, keepdims=True)
    labels = (random.random((20000, 1)) > scores.cumsum(-1)).sum(-1)
    half = slice(10000), slice(10000, None)
    (logits, known), (held_out, others) = ((3 * honest[h], labels[h]) for h in half)
    found = analysis.temperature_scaling(logits, known, held_out, others)
    assert found.temperature == pytest.approx(3, rel=0.05)
    gap = np.exp(3 * honest - np.log(np.exp(3 * honest).sum(-1, keepdims=True))).max(-1)[half[0]]
    assert found.before.error == pytest.approx(
        gap.mean() - scores.max(-1)[half[0]].mean(), abs=0.015
    )
    assert found.before.error > 0.1
    assert found.after.error < 0.015
