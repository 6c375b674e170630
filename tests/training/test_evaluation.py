import numpy as np
import pytest

from kdtoolkit.training import evaluation


def test_figures_by_hand():
    """Probabilities .7 .2 .1 (class 0, right) and .25 .5 .25 (class 2, wrong)."""
    logits = np.log([[0.7, 0.2, 0.1], [0.25, 0.5, 0.25]]) + np.array([[5.0], [-3.0]])
    figures = evaluation.figures(logits, np.array([0, 2]))
    assert figures.accuracy == 0.5
    assert figures.loss == pytest.approx(-(np.log(0.7) + np.log(0.25)) / 2)
    assert figures.primary_score == pytest.approx(0.6)
