import numpy as np
import pytest

from kdtoolkit import analysis
from kdtoolkit._checks import ArgumentError

SCORES = np.array([[0.7, 0.2, 0.1], [0.3, 0.1, 0.6]])


def test_scores_are_sorted_before_they_are_averaged():
    found = analysis.sorted_confidences(np.log(SCORES) + 5)
    np.testing.assert_allclose(found, [0.65, 0.25, 0.1], rtol=1e-12)


def test_score_of_the_true_class():
    assert analysis.true_score(np.log(SCORES), np.array([1, 2])) == pytest.approx(0.4, abs=1e-12)


def test_closed_form_is_that_of_the_iterated_mixture():
    """Each student is put at its optimum, the mixture of the label and of its teacher."""
    random, weights = np.random.default_rng(0), [0.6, 0.5, 0.9]
    labels, p = random.integers(0, 4, 50), random.dirichlet(np.ones(4), 50)
    onehot = np.eye(4)[labels]
    means = [p[np.arange(50), labels].mean()]
    for weight in weights:
        p = (1 - weight) * onehot + weight * p
        means.append(p[np.arange(50), labels].mean())
    expected = analysis.expected_true_scores(means[0], weights)
    np.testing.assert_allclose(expected, means, rtol=1e-12)
    constant = analysis.expected_true_scores(0.6, [0.6] * 5)  # of docs and paper
    np.testing.assert_allclose(constant, [1 - 0.4 * 0.6**g for g in range(6)], rtol=1e-12)


@pytest.mark.parametrize(("first", "weights"), [(1.1, []), (0.5, [0.5, -0.1])])
def test_range(first, weights):
    with pytest.raises(ArgumentError, match=r"in \[0, 1\]"):
        analysis.expected_true_scores(first, weights)
